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


def partition(scenario: Scenario, ranks: Ints) -> Partition:
    """``ranks`` share the flat list."""
    sizes = _trained(scenario)
    found = {int(n): _fullest(sizes, int(n)) for n in set(ranks.tolist())}
    rows = np.array([found[int(n)] for n in ranks]).reshape(len(ranks), 3)
    return Partition(
        elements=cast(Floats, rows[:, 0]),
        largest_part=cast(Floats, rows[:, 1]),
        largest=max(sizes),
        arrives=cast(Floats, rows[:, 2]),
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
def _fullest(sizes: tuple[float, ...], ranks: int) -> tuple[float, float, float]:
    """(elements of whole parameters, the largest part of one, share of the elements after them) of the fullest rank.

    What a rank's stretch of the list touches lies between two indices, so that no rank looks at every parameter.
    """
    ends = np.cumsum(sizes)
    starts, total = ends - sizes, ends[-1]
    borders = total * np.arange(ranks + 1) / ranks
    low, high = borders[:-1], borders[1:]
    first = np.searchsorted(ends, low + ROUNDED, side="right")
    last = np.searchsorted(starts, high - ROUNDED, side="left")  # not counting this one
    held = np.where(
        (last > first) & (high - low > ROUNDED), np.append(ends, total)[last - 1] - np.append(starts, total)[first], 0.0
    )
    rank = int(np.argmax(np.rint(held)))  # of equals the first
    if held[rank] <= 0:
        return 0.0, 0.0, 0.0
    touched = slice(first[rank], last[rank])
    inside = np.minimum(ends[touched], high[rank]) - np.maximum(starts[touched], low[rank])
    return float(held[rank]), float(inside.max()), float(1 - ends[touched][-1] / total)
