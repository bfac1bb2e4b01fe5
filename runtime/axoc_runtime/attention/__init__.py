"""Attention by name: what each backend can do, and how transformers is told to use it."""

from axoc_runtime.attention.backends import BACKENDS, Backend, Heads, obstacles
from axoc_runtime.attention.register import implementation_of

__all__ = ["BACKENDS", "Backend", "Heads", "implementation_of", "obstacles"]
