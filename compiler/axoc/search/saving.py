"""How often the chosen plan saves, and why: what its cluster's failures ask for (cost/interruptions.py)."""

from __future__ import annotations

import math

import numpy as np

from axoc.cost.interruptions import SECONDS_PER_DAY, USUAL_SAVES, save_seconds, save_steps
from axoc.facts.failures import failure_rate
from axoc.search.passes import Pass
from axoc.units import duration


def planned_save_steps(best: Pass, row: int) -> int:
    """Of a run whose steps are known."""
    one = best.costed.columns.rows(np.array([row])).of_one_variant()
    return int(save_steps(best.costed.variant(row), one, best.costed.time.step_seconds[row : row + 1])[0])


def saving_reason(best: Pass, row: int) -> str | None:
    """Why it saves more often than four times; None where it does not, or where the spec says how often."""
    scenario = best.costed.variant(row)
    if scenario.steps is None or scenario.save_steps is not None:
        return None
    every = planned_save_steps(best, row)
    if every >= max(1, scenario.steps // USUAL_SAVES):
        return None
    rate, one = failure_rate(scenario.cluster), best.costed.columns.rows(np.array([row])).of_one_variant()
    save = float(save_seconds(scenario, one)[0])
    apart = every * float(best.costed.time.step_seconds[row])
    return (
        f"every {duration(apart)}, {math.ceil(scenario.steps / every):,} times: {scenario.cluster.world_size:,} accelerators "
        f"fail every {duration(SECONDS_PER_DAY / rate.per_day)} ({rate.source}), and a checkpoint takes {duration(save)}: what "
        f"is lost is least at about sqrt(2 x {duration(save)} x {duration(SECONDS_PER_DAY / rate.per_day)}) (Young, Daly)"
    )
