"""GGUF: written with the gguf package, quantized and checked by llama.cpp."""
