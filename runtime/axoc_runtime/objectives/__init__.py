"""Objectives: what is optimized."""
