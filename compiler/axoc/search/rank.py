"""Ranking: the fastest first, and of those that are equally fast the simplest.

Two predictions closer than TIE_SHARE are not told apart by the model, so the tie goes to the plan with less machinery:
tensor parallel degree, offload, strategy (single, ddp, zero1, zero2, fsdp, zero3), checkpointed layers, accumulation.
Across kinds of hardware the cheaper run comes first, since the work is the same.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from axoc.search.passes import Pass, complexity

TIE_SHARE: Final = 0.03


def price_of_step(found: Pass, row: int) -> float:
    """Dollars of one step, or its seconds on all devices where no price is known."""
    scenario = found.costed.scenario
    price = scenario.cluster.price_usd_per_accelerator_hour or 1.0
    return float(found.costed.time.step_seconds[row]) * price * int(found.costed.columns.world[row]) / found.total


def order(passes: list[Pass]) -> list[tuple[Pass, int]]:
    """Every row that fits, the chosen one first, then by seconds a sequence (one kind) or price (several)."""
    rows = [(p, int(r)) for p in passes for r in np.flatnonzero(p.fits())]
    if not rows:
        return []
    several = len({p.costed.scenario.cluster.label for p, _ in rows}) > 1

    def score(item: tuple[Pass, int]) -> float:
        found, row = item
        return price_of_step(found, row) if several else float(found.costed.time.step_seconds[row]) / found.total

    exact = {(id(p), r): score((p, r)) for p, r in rows}
    best = min(exact.values())

    def key(item: tuple[Pass, int]) -> tuple[object, ...]:
        found, row = item
        value = exact[(id(found), row)]
        tied = value <= best * (1 + TIE_SHARE)
        preference = quantization_rank(found)
        machinery = complexity(found, row)
        return (0, preference, machinery, value) if tied else (1, value, preference, machinery)

    return sorted(rows, key=key)


def quantization_rank(found: Pass) -> int:
    """Exact weights before quantized ones where both are as fast."""
    return 0 if found.costed.scenario.quantization == "none" else 1
