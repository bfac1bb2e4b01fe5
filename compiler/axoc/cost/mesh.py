"""The mesh of ranks and the groups along its axes, innermost first: tensor parallel, shards of one copy, copies of the model
(hybrid shard; MiCS, Zhang et al. 2022, https://arxiv.org/abs/2205.00119)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np

from axoc.cost.columns import Columns, Floats
from axoc.cost.kernels import pace_of
from axoc.cost.scenario import Scenario
from axoc.facts.links import link_kind


@dataclass(frozen=True, kw_only=True)
class Axis:
    """Groups of ranks along one axis of the mesh."""

    ranks: Floats
    stride: Floats
    """Between neighbours of a group: the product of the axes within."""


def shard_axis(c: Columns) -> Axis:
    """Ranks that share a copy; without hybrid shard all that hold other batches."""
    return Axis(ranks=c.shard_degree.astype(np.float64), stride=c.tensor_parallel.astype(np.float64))


def replicate_axis(c: Columns) -> Axis:
    """Ranks that hold the same shard of different copies."""
    stride = (c.shard_degree * c.tensor_parallel).astype(np.float64)
    return Axis(ranks=c.replicate_degree.astype(np.float64), stride=stride)


def tensor_axis(c: Columns) -> Axis:
    return Axis(ranks=c.tensor_parallel.astype(np.float64), stride=np.ones(len(c)))


def nodes_spanned(scenario: Scenario, axis: Axis) -> Floats:
    """By one group: torchrun numbers ranks node by node."""
    per_node = float(scenario.cluster.accelerators_per_node)
    return np.minimum(axis.ranks, np.maximum(1.0, np.ceil(axis.ranks * axis.stride / per_node)))


def ring_rate(scenario: Scenario, axis: Axis) -> Floats:
    """Bytes a second of one rank in its group's ring. A node's network carries one ring of each group that leaves it: of
    neighbours a single one, which NCCL spreads over all of the node's adapters."""
    per_node = float(scenario.cluster.accelerators_per_node)
    inside, across = _inside(scenario, axis), _across(scenario) / np.minimum(axis.stride, per_node)
    alone = axis.ranks / nodes_spanned(scenario, axis) <= 1  # one rank of a group in each node: no link inside is used
    rate = np.where(_leaves(scenario, axis), np.where(alone, across, np.minimum(inside, across)), inside)
    return cast(Floats, rate / pace_of(scenario).links)


def _leaves(scenario: Scenario, axis: Axis) -> Floats:
    return cast(Floats, nodes_spanned(scenario, axis) > 1)


def _inside(scenario: Scenario, axis: Axis) -> Floats:
    """Where each pair has a link of its own, a group has those between its ranks alone."""
    cluster = scenario.cluster
    own = cluster.accelerator
    rate = own.link_bandwidth_bytes_per_second * link_kind(own.link_kind).efficiency
    if not cluster.link_direct or cluster.accelerators_per_node < 3:
        return np.full(len(axis.ranks), rate)
    neighbours = np.maximum(axis.ranks / nodes_spanned(scenario, axis) - 1.0, 1.0)
    return cast(Floats, rate * np.minimum(1.0, neighbours / (cluster.accelerators_per_node - 1)))


def _across(scenario: Scenario) -> float:
    """Bytes a second of one node, one direction, that collectives reach."""
    cluster = scenario.cluster
    share = cluster.network_efficiency or link_kind(cluster.network_kind).efficiency
    return cluster.network_bandwidth_bytes_per_second * share
