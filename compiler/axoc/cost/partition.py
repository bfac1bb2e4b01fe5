"""Which parameters lie in a rank's share of a flat list of them: ZeRO-1 and 2 keep those gradients whole.

Source: deepspeed 0.19.8, runtime/zero/stage_1_and_2.py, get_partition_info and copy_grads_in_partition.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, cast

import numpy as np

from axoc.cost.columns import Floats, Ints
from axoc.cost.scenario import Scenario
from axoc.facts.parameters import linear_shapes

ROUNDED: Final = 0.5
"""Of an element: borders are rounded to whole ones."""


@dataclass(frozen=True, kw_only=True)
class Partition:
    """Of the rank that keeps most, one row a candidate."""

    elements: Floats
    """Of all parameters that touch its share."""
    largest_part: Floats
    """Elements of one parameter inside the share."""
    largest: float
    """Of any parameter, whole."""
    arrives: Floats
    """Share of the parameters, counted from the last one, whose gradients come before the first that it keeps."""
    elements_of_last: Floats
    """The same as ``elements`` of the last rank, whose gradients are the first of a backward."""
    largest_part_of_last: Floats


def partition(scenario: Scenario, ranks: Ints) -> Partition:
    """``ranks`` share the flat list."""
    sizes = _trained(scenario)
    found = {int(n): _shares(sizes, int(n)) for n in set(ranks.tolist())}
    rows = np.array([found[int(n)] for n in ranks]).reshape(len(ranks), 5)
    elements, part, arrives, last, last_part = (cast(Floats, rows[:, column]) for column in range(5))
    return Partition(
        elements=elements,
        largest_part=part,
        largest=max(sizes),
        arrives=arrives,
        elements_of_last=last,
        largest_part_of_last=last_part,
    )


def _trained(scenario: Scenario) -> tuple[float, ...]:
    """Elements of each trained parameter, in the model's order. What a block has beside its matrices is one; adapters'
    matrices are taken alike."""
    sizes, layers = scenario.sizes, scenario.model.num_layers
    if not scenario.is_full:
        count = max(1, 2 * sizes.lora_targets * layers)
        return (scenario.trainable / count,) * count
    shapes = [s for s in linear_shapes(scenario.model) if s.layers == layers]
    matrices = [float(s.weights) for s in shapes for _ in range(s.copies_per_layer)]
    rest = sizes.blocks / layers - sum(matrices)
    block = [*matrices, rest] if rest > 0 else [sizes.blocks / layers]
    return tuple(float(n) for n in (sizes.embedding, *block * layers, sizes.lm_head) if n)


@lru_cache(maxsize=256)
def _shares(sizes: tuple[float, ...], ranks: int) -> tuple[float, float, float, float, float]:
    """(elements of whole parameters of the fullest rank, the largest part of one there, share of the elements after them,
    elements of whole parameters of the last rank that has any, the largest part of one there).

    What a rank's stretch of the list touches lies between two indices, so that no rank looks at every parameter.
    """
    ends = np.cumsum(sizes)
    starts, total = ends - sizes, ends[-1]
    borders = total * np.arange(ranks + 1) / ranks
    low, high = borders[:-1], borders[1:]
    first = np.searchsorted(ends, low + ROUNDED, side="right")
    end = np.searchsorted(starts, high - ROUNDED, side="left")  # not counting this one
    held = np.where(
        (end > first) & (high - low > ROUNDED), np.append(ends, total)[end - 1] - np.append(starts, total)[first], 0.0
    )
    if not held.any():
        return 0.0, 0.0, 0.0, 0.0, 0.0
    fullest, last = int(np.argmax(np.rint(held))), int(np.flatnonzero(held)[-1])  # of equals the first

    def largest_part(rank: int) -> float:
        touched = slice(first[rank], end[rank])
        return float((np.minimum(ends[touched], high[rank]) - np.maximum(starts[touched], low[rank])).max())

    after = float(1 - ends[end[fullest] - 1] / total)
    return float(held[fullest]), largest_part(fullest), after, float(held[last]), largest_part(last)
