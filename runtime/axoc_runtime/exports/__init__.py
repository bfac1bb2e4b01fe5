"""The trained model in other formats, each loaded and measured by the library that will serve it."""
