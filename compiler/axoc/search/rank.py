"""Ranking: a total order of all rows that fit.

1. Rows within policy.max_hours and max_cost_usd before those beyond.
2. Rows that the model cannot tell from the best by the objective (TIE_SHARE of its training) before all others.
3. Among those the one with least machinery: exact states and weights before rounded ones, then tensor parallel degree, offload,
   strategy (single, ddp, zero1, zero2, fsdp, zero3), checkpointed layers, accumulation; the others by the objective, packing,
   attention, kernels and compilation included: a word in the spec is no machinery.
4. What is still equal by the objective, then in the order of the inventory and of the space.
"""

from __future__ import annotations

import numpy as np

from axoc.ir.request import PlanRequest
from axoc.search.objective import Objective, within_policy
from axoc.search.passes import Pass, complexity

Row = tuple[Pass, int]


def order(request: PlanRequest, passes: list[Pass], wanted: Objective) -> list[Row]:
    """Every row that fits, the chosen one first."""
    fitting = [(p, p.fits(), within_policy(request, p), wanted.of(p), wanted.slack(p)) for p in passes]
    rows = [
        (not kept[r], float(value[r]), float(slack[r]), i, int(r))
        for i, (_, fits, kept, value, slack) in enumerate(fitting)
        for r in np.flatnonzero(fits)
    ]
    if not rows:
        return []
    beyond, best, slack_, *_ = min(rows)

    def key(item: tuple[bool, float, float, int, int]) -> tuple[object, ...]:
        breaks, value, _, i, row = item
        machinery = (rounding(passes[i]), *complexity(passes[i], row))
        tied = breaks == beyond and value <= best + slack_
        return (breaks, 0, machinery, value, i, row) if tied else (breaks, 1, value, machinery, i, row)

    return [(passes[item[3]], item[4]) for item in sorted(rows, key=key)]


def rounding(found: Pass) -> int:
    """What is rounded beyond training's own precision: nothing, the optimizer's states, frozen weights, or both."""
    scenario = found.costed.scenario
    return 2 * (scenario.quantization != "none") + (scenario.optimizer == "adamw_bnb_8bit")
