"""The pitfalls of pitfalls.json: what broke real runs, and how axoc meets each. Not read when a plan is made."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

from axoc.search.rules.versions import Versions

MET_BY: Final = {
    "rule": "the planner refuses it, or chooses around it",
    "schema": "a spec cannot express it",
    "emitter": "what the bundle says avoids it",
    "runtime": "the runtime refuses it, or does it otherwise",
    "construction": "it cannot come about",
    "future": "what it concerns is refused as a whole, and its own check is still to be written",
}


@dataclass(frozen=True, kw_only=True)
class Pitfall:
    number: int
    id: str
    what: str
    met_by: str
    """One of MET_BY."""
    places: tuple[str, ...]
    """``file:name`` in this repository."""
    rules: tuple[str, ...]
    tests: tuple[str, ...]
    """``file::function`` in this repository."""
    links: tuple[str, ...]
    """Public evidence."""
    versions: tuple[Versions, ...]
    """Where it fails; none: in the nature of the thing."""
    now: str
    """What the pinned versions do, or how it is met, and where that was read or seen."""
    fix: str


def pitfalls() -> tuple[Pitfall, ...]:
    """All of them, by number."""
    text = (files(__package__) / "pitfalls.json").read_text(encoding="utf-8")
    return tuple(_pitfall(row) for row in json.loads(text)["pitfalls"])


def _pitfall(row: dict[str, Any]) -> Pitfall:
    lists = {name: tuple(row[name]) for name in ("places", "rules", "tests", "links")}
    return Pitfall(**{**row, **lists, "versions": tuple(Versions(**v) for v in row["versions"])})
