"""Links and networks as an inventory file gives them (see inventory_file)."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

import yaml

from axoc.facts.cluster import gbps_to_bytes
from axoc.facts.links import ACCELERATORS, NODES, kind_names, link_kind
from axoc.facts.yaml_nodes import NodeReader, scalar

LINK: Final = ("kind", "gbps", "direct")
NETWORK: Final = ("kind", "gbps", "ports", "efficiency", "latency_us")


@dataclass(frozen=True, kw_only=True)
class GivenLink:
    """What the file says; None where it does not."""

    kind: str | None = None
    bytes_per_second: float | None = None
    direct: bool | None = None
    efficiency: float | None = None
    latency_seconds: float | None = None


def read_link(reader: NodeReader, node: yaml.Node | None) -> GivenLink:
    """Between the accelerators of a node. ``gbps``: one direction, of one accelerator."""
    if node is None:
        return GivenLink()
    values = reader.mapping(node, LINK, "link")
    gbps = reader.number(values.get("gbps"), "link.gbps")
    return GivenLink(
        kind=_kind(reader, values.get("kind"), "link.kind", ACCELERATORS),
        bytes_per_second=None if gbps is None else gbps_to_bytes(gbps),
        direct=_flag(reader, values.get("direct"), "link.direct"),
    )


def read_network(reader: NodeReader, node: yaml.Node | None) -> GivenLink:
    """Between nodes. ``gbps``: one direction, of one node; or ``ports`` of a kind whose name says what a port carries."""
    if node is None:
        return GivenLink()
    values = reader.mapping(node, NETWORK, "network")
    kind = _kind(reader, values.get("kind"), "network.kind", NODES)
    gbps = reader.number(values.get("gbps"), "network.gbps") or _of_ports(reader, values.get("ports"), kind)
    efficiency = reader.number(values.get("efficiency"), "network.efficiency")
    if efficiency is not None and efficiency > 1:
        reader.reject(values["efficiency"], f"network.efficiency is {efficiency:g}", expected="a share, at most 1")
    latency = reader.number(values.get("latency_us"), "network.latency_us")
    return GivenLink(
        kind=kind,
        bytes_per_second=None if gbps is None else gbps_to_bytes(gbps),
        efficiency=efficiency,
        latency_seconds=None if latency is None else latency * 1e-6,
    )


def _of_ports(reader: NodeReader, node: yaml.Node | None, kind: str | None) -> float | None:
    """Gigabits a second of all of a node's ports."""
    if node is None:
        return None
    port = None if kind is None else link_kind(kind).port_gbps
    if port is None:
        said = [name for name in kind_names(NODES) if link_kind(name).port_gbps]
        reader.reject(node, "network.ports needs a kind whose ports are all alike", expected=", ".join(said))
        return None
    return port * reader.count(node, "network.ports", 1)


def _kind(reader: NodeReader, node: yaml.Node | None, name: str, between: str) -> str | None:
    kind, known = reader.text(node, name), kind_names(between)
    if kind is None or kind in known:
        return kind
    close = get_close_matches(kind.lower(), known, n=1, cutoff=0.5)
    fix = f"did you mean {close[0]}?" if close else "take the one that is most like it, and give gbps"
    reader.reject(node, f"{name} {kind[:40]!r} is not a kind that axoc knows", expected=", ".join(known), fix=fix)
    return None


def _flag(reader: NodeReader, node: yaml.Node | None, name: str) -> bool | None:
    value = scalar(node)
    if value is not None and not isinstance(value, bool):
        reader.reject(node, f"{name} is {str(value)[:40]!r}", expected="true or false")
        return None
    return value
