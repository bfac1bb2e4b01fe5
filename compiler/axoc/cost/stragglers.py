"""The slowest of many: ranks wait for one another in every collective, so a step takes as long as its slowest accelerator.

Accelerators of one kind differ, by silicon and cooling: over clusters of hundreds the slowest is behind the fastest by 8% on
matrix products (Sinha et al. 2022, SC22, "Not All GPUs Are Created Equal", abstract: 8% on average over clusters, at most 22%).
Of a normal distribution that is the range that 500 draws span, 6.1 standard deviations; more draws reach further out.
"""

from __future__ import annotations

from functools import cache
from statistics import NormalDist
from typing import Final, cast

import numpy as np

from axoc.cost.columns import Columns, Floats
from axoc.cost.scenario import Scenario

RANGE_SHARE: Final = 0.08
RANGE_DEVIATIONS: Final = 6.1
SPREAD: Final = RANGE_SHARE / RANGE_DEVIATIONS
"""Standard deviation of an accelerator's pace, as a share of the mean."""
SLOWEST: Final = "waiting for the slowest accelerator"


def waiting_seconds(scenario: Scenario, c: Columns, computing: Floats) -> Floats:
    """``computing``: seconds of kernels in a step, of the average accelerator. CPU processes share one machine's pace."""
    if scenario.on_cpu:
        return np.zeros(len(c))
    slower = np.array([slowest(int(world)) for world in c.world])
    return cast(Floats, computing * slower)


@cache
def slowest(world: int) -> float:
    """By how much the slowest of so many is expected to be behind the average, as a share of its seconds. The largest of n
    normal draws is expected about where n - 3/8 of n + 1/4 lie below (Blom 1958)."""
    if world < 2:
        return 0.0
    return SPREAD * NormalDist().inv_cdf((world - 0.375) / (world + 0.25))
