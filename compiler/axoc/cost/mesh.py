"""The mesh of ranks and the rings along its axes, innermost first: tensor parallel, shards of one copy, copies of the model
(hybrid shard; MiCS, Zhang et al. 2022, https://arxiv.org/abs/2205.00119)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

import numpy as np

from axoc.cost.columns import Columns, Floats
from axoc.cost.kernels import pace_of
from axoc.cost.scenario import Scenario

LINK_SHARE: Final = 0.75
"""Of a link's rate that large collectives reach (nccl-tests' bus bandwidth over NVLink's one-way rate)."""
LATENCY_SECONDS: Final = 15e-6


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


def ring_rate(scenario: Scenario, axis: Axis) -> Floats:
    """Bytes a second of one rank in its group's ring. A node's network carries one ring of each group that leaves it: of
    neighbours a single one, which NCCL spreads over all of the node's adapters."""
    cluster = scenario.cluster
    per_node = float(cluster.accelerators_per_node)
    inside = cluster.accelerator.link_bandwidth_bytes_per_second
    across = cluster.network_bandwidth_bytes_per_second / np.minimum(axis.stride, per_node)
    leaves = axis.ranks * axis.stride > per_node
    return cast(Floats, np.where(leaves, np.minimum(inside, across), inside) * LINK_SHARE / pace_of(scenario).links)
