"""What quantized weights free, and what the batch split makes of it: the chosen row beside exact weights, all else equal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from axoc.ir.plan import Decision
from axoc.ir.request import AUTO, PlanRequest
from axoc.search.passes import Pass
from axoc.units import gib

FOLLOWS: Final = ("training.micro_batch_size", "training.gradient_accumulation_steps")


def with_freed_memory(
    request: PlanRequest, found: Sequence[Decision], best: Pass, row: int, exact: Pass
) -> tuple[Decision, ...]:
    """The decisions, those on the batch split with what quantization did to them."""
    text = freed_memory(best, row, exact)
    left_open = {f for f in FOLLOWS if getattr(request.training, f.partition(".")[2]) == AUTO}
    return tuple(replace(d, because=f"{text}; {d.because}") if d.field in left_open else d for d in found)


def freed_memory(best: Pass, row: int, exact: Pass) -> str:
    """E.g. ``nf4 frees 9.8 GiB: micro-batch 8 instead of 2, accumulation 8 instead of 32``.

    Exact weights with the same strategy, offload and checkpointing: bytes at the same micro-batch, and the largest
    micro-batch that fits.
    """
    method, columns = best.costed.scenario.quantization, best.costed.columns
    micro, accumulation = int(columns.micro_batch[row]), int(columns.accumulation[row])
    alike = np.array([c == best.combinations[row] for c in exact.combinations], dtype=np.bool_)
    same = np.flatnonzero(alike & (exact.costed.columns.micro_batch == micro))
    if not len(same):
        return f"{method} weights, where no exact ones can be trained this way"
    freed = float(exact.costed.memory.device_used[same[0]] - best.costed.memory.device_used[row])
    frees = f"{method} frees {gib(freed)}" if freed > 0 else f"{method} takes {gib(-freed)} more than exact weights do"
    fitting = np.flatnonzero(alike & exact.fits())
    if not len(fitting):
        return f"{frees}: exact weights fit with no micro-batch, these with {micro}"
    largest = fitting[np.argmax(exact.costed.columns.micro_batch[fitting])]
    other, longer = (int(c[largest]) for c in (exact.costed.columns.micro_batch, exact.costed.columns.accumulation))
    if other >= micro:
        return f"{frees} at micro-batch {micro}, and exact weights fit {other}: the split does not follow from it"
    return f"{frees}: micro-batch {micro} instead of {other}, accumulation {accumulation} instead of {longer}"
