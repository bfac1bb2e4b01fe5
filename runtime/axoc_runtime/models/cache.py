"""The cache of keys and values: of no use in training, and the base's own choice in what is saved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def leave_cache_off(model: Any) -> None:
    """Remembers what the base has."""
    model.axoc_use_cache = getattr(model.config, "use_cache", None)
    model.config.use_cache = False


@contextmanager
def own_cache(model: Any) -> Iterator[None]:
    """The configuration as the base's is in it. Whoever loads a model that says no would compute all of a text again for each
    token it answers."""
    if not hasattr(model, "axoc_use_cache"):  # an objective of a plugin has loaded it
        yield
        return
    off = model.config.use_cache
    if model.axoc_use_cache is None:
        del model.config.use_cache
    else:
        model.config.use_cache = model.axoc_use_cache
    try:
        yield
    finally:
        model.config.use_cache = off
