"""Which parameters lie in a rank's share of a flat list of them: ZeRO-1 and 2 keep those gradients whole.

Source: deepspeed 0.19.8, runtime/zero/stage_1_and_2.py, get_partition_info and copy_grads_in_partition.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import numpy as np

from axoc.cost.columns import Floats, Ints
from axoc.cost.scenario import Scenario
from axoc.facts.parameters import linear_shapes


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
    found = {int(n): _fullest(sizes, int(n)) for n in np.unique(ranks)}
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
    """(elements of whole parameters, the largest part of one, share of the elements after them) of the fullest rank."""
    ends = np.cumsum(sizes)
    starts, total = ends - sizes, ends[-1]
    best = (0.0, 0.0, 0.0)
    for rank in range(ranks):
        low, high = total * rank / ranks, total * (rank + 1) / ranks
        inside = np.minimum(ends, high) - np.maximum(starts, low)
        touching = inside > 0.5  # of an element: borders are rounded
        elements = float(np.asarray(sizes)[touching].sum())
        if elements > best[0]:
            best = (elements, float(inside.max()), float(1 - ends[touching].max() / total))
    return best
