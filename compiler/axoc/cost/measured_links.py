"""How far collectives stay behind their rings and trees, where a profile has measured them on one node.

A profile's ``collectives`` are of as many ranks as its machine had. What is taken from them is no time but a ratio, by size:
measured over what rings.py says of that number of ranks; more ranks of one node are given the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final, cast

import numpy as np

from axoc.cost.columns import Floats
from axoc.cost.kernels import pace_of, profile_of
from axoc.cost.mesh import Axis, nodes_spanned
from axoc.cost.scenario import Scenario
from axoc.facts.profile import Table

GATHERS: Final = ("all_gather", "reduce_scatter")
SUMS: Final = ("all_reduce",)
Formula = Callable[[Scenario, Floats, Axis], Floats]


def behind(scenario: Scenario, formula: Formula, operations: tuple[str, ...], num_bytes: Floats, axis: Axis) -> Floats:
    """Measured seconds over the formula's, interpolated over the logarithm of bytes; 1 between nodes or unmeasured. A profile
    that ships was measured behind a switch, and says nothing of boards whose ranks have a link for each neighbour."""
    profile = profile_of(scenario)
    table = profile.tables.get("collectives") if profile is not None else None
    ranks = max(table.column("ranks"), default=1) if table is not None else 1
    cluster = scenario.cluster
    if table is None or ranks < 2 or (cluster.link_direct and cluster.calibration is None):
        return np.ones(len(axis.ranks))
    sizes, seconds = _measured(table, ranks, operations)
    same = Axis(ranks=np.full(len(sizes), float(ranks)), stride=np.ones(len(sizes)))
    measured_on = replace(
        scenario, cluster=replace(cluster, accelerators_per_node=max(ranks, cluster.accelerators_per_node))
    )
    ratios = seconds / formula(measured_on, sizes, same) * pace_of(scenario).links
    found = np.interp(np.log(np.maximum(num_bytes, 1.0)), np.log(sizes), ratios)
    return cast(Floats, np.where(nodes_spanned(scenario, axis) > 1, 1.0, found))


def _measured(table: Table, ranks: int, operations: tuple[str, ...]) -> tuple[Floats, Floats]:
    """(bytes, seconds), the mean of the operations."""
    each = [table.where(ranks=ranks, operation=operation) for operation in operations]
    sizes = np.array(each[0].column("bytes"), dtype=np.float64)
    seconds = np.mean([t.column("value") for t in each], axis=0)
    return sizes, cast(Floats, seconds)
