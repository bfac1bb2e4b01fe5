"""Targets: what an engine is told, from one plan. One class each, in one file, under the entry points ``axoc.targets``."""
