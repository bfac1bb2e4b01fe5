"""Callbacks of the Trainer: the plan's assertion, progress, timing, complete checkpoints."""
