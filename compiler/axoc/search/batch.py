"""Batch arithmetic. The invariant: global = micro x accumulation x data parallel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from axoc.ir.request import AUTO, TrainingRequest

DEFAULT_GLOBAL_BATCH: Final = 64
"""Sequences a step where the user leaves it open: the middle of the 32 to 128 that instruction tuning uses."""
MAX_MICRO_BATCH: Final = 64
LEAST_MICRO_BATCH: Final = {"kto": 2}
"""KTO measures the distance to the reference on answers of other rows of a micro-batch (trl/trainer/kto_trainer.py)."""


@dataclass(frozen=True, kw_only=True)
class BatchChoice:
    micro: int
    accumulation: int


def global_batch(training: TrainingRequest, world_size: int, data_parallels: list[int]) -> int:
    """The one global batch all candidates share, so that they are compared at equal work."""
    if training.global_batch_size != AUTO:
        return training.global_batch_size
    micro, accumulation = training.micro_batch_size, training.gradient_accumulation_steps
    if micro != AUTO and accumulation != AUTO:
        return micro * accumulation * max(data_parallels)
    unit = world_size * (micro if micro != AUTO else 1) * (accumulation if accumulation != AUTO else 1)
    if training.grpo is not None:  # a step takes whole groups of completions
        unit = math.lcm(unit, training.grpo.generations)
    return unit * max(1, -(-DEFAULT_GLOBAL_BATCH // unit))


def choices(training: TrainingRequest, total: int, data_parallel: int) -> list[BatchChoice]:
    """Every split of the global batch the request allows; empty where the arithmetic does not work out."""
    if total % data_parallel:
        return []
    per_rank = total // data_parallel
    micros = range(LEAST_MICRO_BATCH.get(training.objective, 1), min(per_rank, MAX_MICRO_BATCH) + 1)
    wanted, accumulation = training.micro_batch_size, training.gradient_accumulation_steps
    if wanted != AUTO:
        micros = range(wanted, wanted + 1)
    splits = [BatchChoice(micro=m, accumulation=per_rank // m) for m in micros if per_rank % m == 0]
    return [s for s in splits if accumulation in (AUTO, s.accumulation)]
