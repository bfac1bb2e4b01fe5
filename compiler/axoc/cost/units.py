"""FSDP2's units: how many blocks are gathered and reduced in one collective.

A collective takes its latency whatever its size: units are made so large that latency is a small part of what the transfer
takes (torch's own advice is to group what is small: docs of fully_shard). A larger one costs memory: all of it is gathered.
"""

from __future__ import annotations

from typing import Final, cast

import numpy as np

from axoc.cost.buckets import LIVE_ELEMENTS
from axoc.cost.columns import Columns, Floats, Ints
from axoc.cost.mesh import ring_rate, shard_axis
from axoc.cost.rings import latency_seconds
from axoc.cost.scenario import Scenario

LATENCY_SHARE: Final = 0.1
"""Of the transfer's time, at most, where blocks are as small as that."""


def min_unit_parameters(scenario: Scenario, c: Columns) -> Floats:
    """As set; else those whose gather, (n - 1) / n of their bytes in the compute dtype, takes ten times the latency, but no
    more than a device keeps gathered under ZeRO-3: over thousands of ranks no unit would be large enough."""
    if scenario.min_unit_parameters is not None:
        return np.full(len(c), float(scenario.min_unit_parameters))
    axis = shard_axis(c)
    several = np.maximum(axis.ranks, 2.0)
    moved = latency_seconds(scenario, axis) / LATENCY_SHARE * ring_rate(scenario, axis)
    least = np.minimum(moved / scenario.compute_bytes * several / (several - 1), float(LIVE_ELEMENTS))
    return cast(Floats, np.where(axis.ranks > 1, least, 1.0))


def blocks_per_unit(scenario: Scenario, c: Columns) -> Ints:
    """Of the model's blocks, which are taken in order; 1 under other strategies."""
    block = scenario.sizes.blocks / scenario.model.num_layers / c.tensor_parallel
    wanted = np.ceil(min_unit_parameters(scenario, c) / np.maximum(block, 1.0))
    return np.where(c.uses("fsdp"), np.clip(wanted, 1, scenario.model.num_layers), 1).astype(np.int64)
