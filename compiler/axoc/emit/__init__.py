"""Emit: a Plan becomes typed configurations, then text, then a Bundle in memory, then files."""
