"""Quantization methods beside each other on one machine: size, memory, speed and perplexity of the same model."""
