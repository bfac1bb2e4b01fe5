"""Seconds of one collective: by ring, or by tree where it sums over all ranks, each by its fastest protocol.

A ring takes (n - 1) / n of the bytes once to gather or scatter, twice to sum (Thakur et al. 2005,
https://doi.org/10.1177/1094342005051521), and a hop for each rank on the way: over thousands of ranks the hops are what it
takes. A tree is one of nodes with a chain inside each, so that its hops grow with the logarithm of the nodes; it carries a
little less. Which of them runs, and by which protocol, NCCL decides by these same sums (src/graph/tuning.cc).
"""

from __future__ import annotations

from typing import Final, cast

import numpy as np

from axoc.cost.columns import Floats
from axoc.cost.measured_links import GATHERS, SUMS, behind
from axoc.cost.mesh import Axis, nodes_spanned, ring_rate
from axoc.cost.scenario import Scenario
from axoc.facts.links import LinkKind, Protocol, link_kind, protocols

TREE_RATE: Final = 0.92
"""Of a ring's (NCCL, ncclTopoTuneModel)."""


def gather_seconds(scenario: Scenario, num_bytes: Floats, axis: Axis) -> Floats:
    """Also of a scatter of sums. ``num_bytes``: whole, as every rank has them afterwards."""
    return _gather(scenario, num_bytes, axis) * behind(scenario, _gather, GATHERS, num_bytes, axis)


def all_reduce_seconds(scenario: Scenario, num_bytes: Floats, axis: Axis) -> Floats:
    return _all_reduce(scenario, num_bytes, axis) * behind(scenario, _all_reduce, SUMS, num_bytes, axis)


def _gather(scenario: Scenario, num_bytes: Floats, axis: Axis) -> Floats:
    share = (axis.ranks - 1) / np.maximum(axis.ranks, 1)
    found = [
        _ring_latency(scenario, axis, p) + share * num_bytes / (ring_rate(scenario, axis) * p.rate)
        for p in _usable(scenario)
    ]
    return _none_alone(axis, np.min(found, axis=0))


def _all_reduce(scenario: Scenario, num_bytes: Floats, axis: Axis) -> Floats:
    """The faster of ring and tree."""
    share, rate = (axis.ranks - 1) / np.maximum(axis.ranks, 1), ring_rate(scenario, axis)
    found = [
        seconds
        for p in _usable(scenario)
        for seconds in (
            2.0 * _ring_latency(scenario, axis, p) - p.start_seconds + 2.0 * share * num_bytes / (rate * p.rate),
            _tree_latency(scenario, axis, p) + 2.0 * num_bytes / (rate * p.rate * TREE_RATE),
        )
    ]
    return _none_alone(axis, np.min(found, axis=0))


def latency_seconds(scenario: Scenario, axis: Axis) -> Floats:
    """Of a gather of next to nothing."""
    return gather_seconds(scenario, np.zeros(len(axis.ranks)), axis)


def _usable(scenario: Scenario) -> list[Protocol]:
    """Protocols that both kinds of links allow."""
    inside, across = _kinds(scenario)
    return [p for p in protocols() if p.name in inside.ring_hop_seconds and p.name in across.ring_hop_seconds]


def _kinds(scenario: Scenario) -> tuple[LinkKind, LinkKind]:
    cluster = scenario.cluster
    inside = link_kind(cluster.accelerator.link_kind)
    return inside, link_kind(cluster.network_kind) if cluster.nodes > 1 else inside


def _extra(scenario: Scenario) -> float:
    """Of a hop between nodes, beyond the protocol's."""
    cluster = scenario.cluster
    own = cluster.network_latency_seconds
    return link_kind(cluster.network_kind).latency_seconds if own is None else own


def _ring_latency(scenario: Scenario, axis: Axis, protocol: Protocol) -> Floats:
    inside, across = _kinds(scenario)
    nodes = nodes_spanned(scenario, axis)
    hops_across = np.where(nodes > 1, nodes - 1, 0.0)
    hops_inside = axis.ranks - 1 - hops_across
    each = across.ring_hop_seconds[protocol.name] + _extra(scenario)
    return cast(
        Floats,
        protocol.start_seconds + hops_inside * inside.ring_hop_seconds[protocol.name] + hops_across * each,
    )


def _tree_latency(scenario: Scenario, axis: Axis, protocol: Protocol) -> Floats:
    inside, across = _kinds(scenario)
    nodes = nodes_spanned(scenario, axis)
    chain = (axis.ranks / nodes - 1) * inside.tree_hop_seconds[protocol.name]
    between = np.log2(nodes) * (across.tree_hop_seconds[protocol.name] + _extra(scenario))
    return cast(Floats, protocol.start_seconds + 2.0 * (chain + between))


def _none_alone(axis: Axis, seconds: Floats) -> Floats:
    return cast(Floats, np.where(axis.ranks > 1, seconds, 0.0))
