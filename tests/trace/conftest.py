"""A trace looks for garbage twice, which took half of its time: it finds none in what was imported or left before it."""

from __future__ import annotations

import gc

import pytest


@pytest.fixture(autouse=True)
def frozen() -> None:
    """As ``python -m axoc_runtime.trace`` does after its imports."""
    gc.freeze()
