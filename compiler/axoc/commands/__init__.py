"""The commands that cli.py gathers, by what they are for."""
