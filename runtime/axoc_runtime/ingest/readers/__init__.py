"""Built-in readers, one a file."""
