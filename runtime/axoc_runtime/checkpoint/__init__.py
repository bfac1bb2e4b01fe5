"""Checkpoints: complete ones are marked, and only those are resumed from."""
