"""Values without some of them: to check the rest of a spec in which some fields are wrong."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from axoc.spec.problems import Path


def without(value: Any, paths: Collection[Path], here: Path = ()) -> Any:
    """A copy of plain data that lacks the values at ``paths``. A list that loses an item is left out as a whole."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if not _lost(v, paths, (*here, k))}
        return {k: without(v, paths, (*here, k)) for k, v in kept.items()}
    if isinstance(value, list):
        return [without(v, paths, (*here, i)) for i, v in enumerate(value)]
    return value


def _lost(value: Any, paths: Collection[Path], path: Path) -> bool:
    items = len(value) if isinstance(value, list) else 0
    return path in paths or any((*path, index) in paths for index in range(items))
