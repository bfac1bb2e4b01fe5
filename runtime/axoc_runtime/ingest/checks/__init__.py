"""What may be wrong with rows, and how it is told."""
