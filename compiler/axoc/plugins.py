"""What is installed that extends axoc: entry points, where they come from, what they override."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Final

GROUPS: Final = (
    "axoc.model_families",
    "axoc.rules",
    "axoc.targets",
    "axoc_runtime.dataset_formats",
    "axoc_runtime.models",
    "axoc_runtime.objectives",
    "axoc_runtime.callbacks",
    "axoc_runtime.exporters",
    "axoc_runtime.quantizers",
    "axoc_runtime.tokenizers",
)
OWN: Final = ("axoc", "axoc-runtime")


def plugin_rows() -> list[str]:
    """A line an entry point: group, name, object, distribution, and what it overrides."""
    return [row for group in GROUPS for row in _group_rows(group)]


def _group_rows(group: str) -> list[str]:
    found = sorted(entry_points(group=group), key=lambda e: (e.name, _origin(e)))
    own = {e.name for e in found if _origin(e) in OWN}
    rows = []
    for entry in found:
        origin = _origin(entry)
        overrides = "  overrides the built-in" if origin not in OWN and entry.name in own else ""
        rows.append(f"{group:<30} {entry.name:<20} {entry.value}  ({origin}){overrides}")
    return rows


def _origin(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "unknown"
