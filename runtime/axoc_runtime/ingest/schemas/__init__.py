"""Built-in schemas, one a file."""
