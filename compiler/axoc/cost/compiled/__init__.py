"""Blocks as torch.compile runs them: what is kept for the backward, and what lives at the top of either program."""
