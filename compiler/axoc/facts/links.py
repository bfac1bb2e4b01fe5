"""Links between accelerators and networks between nodes: what of their nominal rate collectives reach, and what a hop takes.

The figures lie in data/links.json, each kind with its source. Collectives run by one of several protocols, of which the
library takes the faster one: few bytes by the one whose hops are short, many by the one that uses the whole rate.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final, cast

NODES: Final = "nodes"
ACCELERATORS: Final = "accelerators"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    name: str
    start_seconds: float
    """Of a collective, whatever its size."""
    rate: float
    """Share of the link's rate that is payload."""


@dataclass(frozen=True, kw_only=True)
class LinkKind:
    name: str
    efficiency: float
    """Share of the nominal rate that large transfers reach."""
    latency_seconds: float
    """Of a hop, beyond what its protocol takes."""
    ring_hop_seconds: dict[str, float]
    """By protocol; one that is not here is not used on such links."""
    tree_hop_seconds: dict[str, float]
    direct: bool
    """Each pair has a link of its own, so that a group of some uses the links among them alone; else a switch is between."""
    port_gbps: float | None
    """Of one port, where its name says it."""
    source: str


@cache
def protocols() -> tuple[Protocol, ...]:
    return tuple(Protocol(name=name, **values) for name, values in _read()["protocols"].items())


def kind_names(between: str) -> tuple[str, ...]:
    """``between``: nodes | accelerators"""
    return tuple(name for name, v in _read()["kinds"].items() if _own(v)["between"] == between)


@cache
def link_kind(name: str) -> LinkKind:
    """Raises KeyError for a name that kind_names does not give."""
    values = _read()["kinds"][name]
    own = _own(values)
    return LinkKind(
        name=name,
        efficiency=own["efficiency"],
        latency_seconds=own.get("latency_seconds", 0.0),
        ring_hop_seconds=own["ring_hop_seconds"],
        tree_hop_seconds=own["tree_hop_seconds"],
        direct=own.get("direct", False),
        port_gbps=values.get("port_gbps"),
        source=f"{values['source']}; {own['source']}" if values is not own else own["source"],
    )


def _own(values: dict[str, Any]) -> dict[str, Any]:
    """Of the kind that this one is a name for, or its own."""
    return cast("dict[str, Any]", _read()["kinds"][values["as"]] if "as" in values else values)


@cache
def _read() -> dict[str, Any]:
    text = files("axoc.facts").joinpath("data", "links.json").read_text(encoding="utf-8")
    return cast("dict[str, Any]", json.loads(text))
