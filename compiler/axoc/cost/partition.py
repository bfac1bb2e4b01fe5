"""Which parameters lie in a rank's share of a flat list of them: ZeRO-1 and 2 keep those gradients whole.

Source: deepspeed 0.19.8, runtime/zero/stage_1_and_2.py, get_partition_info and copy_grads_in_partition.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, cast

import numpy as np

from axoc.cost.buckets import reduce_bucket_elements
from axoc.cost.columns import Columns, Floats, Ints
from axoc.cost.scenario import Scenario
from axoc.facts.parameters import LinearShape, linear_shapes
from axoc.ir.facts import ModelFacts

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
    second: float
    """Elements of the second largest parameter of a block, the last one."""


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
        second=_second(scenario),
    )


def largest_elements(scenario: Scenario) -> float:
    """Of any trained parameter."""
    return max(_trained(scenario))


def largest_of_block(scenario: Scenario) -> float:
    """Of the last block's trained ones."""
    if not scenario.is_full:
        return largest_elements(scenario)
    return max(_matrices(scenario.model, scenario.model.num_layers - 1))


def kept_too_large(scenario: Scenario, c: Columns) -> Floats:
    """Elements of gradients that a rank's bucket has no room for, of the rank that has most: with the optimizer on the host they
    stay until the end of each backward but a step's last (copy_grads_in_partition)."""
    found, sizes = np.zeros(len(c)), _trained(scenario)
    rows = c.uses("zero2") & c.offloads_optimizer & (c.accumulation > 1)
    for ranks in np.unique(c.data_parallel[rows]).tolist():
        own = rows & (c.data_parallel == ranks)
        found[own] = _too_large(sizes, ranks, reduce_bucket_elements(scenario.model.hidden_size))
    return found


@lru_cache(maxsize=256)
def _too_large(sizes: tuple[float, ...], ranks: int, bucket: int) -> float:
    """Parameters lie in turns: every ``ranks``-th one, from the first on, then from the second (_round_robin_reorder)."""
    order = np.array([n for rank in range(ranks) for n in sizes[rank::ranks]])
    ends = np.cumsum(order)
    share, large = ends[-1] / ranks, np.where(order > bucket, order, 0.0)
    first = np.clip((ends - order + ROUNDED) // share, 0, ranks - 1)
    last = np.clip((ends - ROUNDED) // share, 0, ranks - 1)
    return max(float(large[(first <= rank) & (last >= rank)].sum()) for rank in range(ranks))


def _trained(scenario: Scenario) -> tuple[float, ...]:
    """Elements of each trained parameter, in the model's order. What a block has beside its matrices and experts is one;
    adapters' matrices are taken alike."""
    sizes, layers = scenario.sizes, scenario.model.num_layers
    if not scenario.is_full:
        count = max(1, 2 * sizes.lora_targets * layers)
        return (scenario.trainable / count,) * count
    blocks = [_matrices(scenario.model, number) for number in range(layers)]
    rest = max(0.0, (sizes.blocks - sum(map(sum, blocks))) / layers)
    inside = [n for block in blocks for n in (*block, rest)]
    return tuple(float(n) for n in (sizes.embedding, *inside, sizes.lm_head) if n)


def stands_in(shape: LinearShape, number: int, layers: int) -> bool:
    """Of block ``number``. Dense MLPs are the first blocks', shared experts the last ones'."""
    if shape.layers == layers:
        return True
    return number < shape.layers if shape.part == "mlp" else number >= layers - shape.layers


def _second(scenario: Scenario) -> float:
    found = sorted(_matrices(scenario.model, scenario.model.num_layers - 1)) if scenario.is_full else []
    return found[-2] if len(found) > 1 else 0.0


def _matrices(model: ModelFacts, number: int) -> list[float]:
    """Of block ``number``: experts' are two tensors, all of one kind in each."""
    moe, found = model.moe, list[float]()
    for shape in linear_shapes(model):
        if stands_in(shape, number, model.num_layers):
            found += [float(shape.weights)] * shape.copies_per_layer
    if moe is not None and number >= moe.num_dense_layers:
        one = float(moe.num_experts * moe.expert_intermediate_size * model.hidden_size)
        found += [one * (2.0 if model.gated_mlp else 1.0), one]
    return found


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
    fullest, last = (
        len(held) - 1 - int(np.argmax(np.rint(held[::-1]))),
        int(np.flatnonzero(held)[-1]),
    )  # of equals the last

    def largest_part(rank: int) -> float:
        touched = slice(first[rank], end[rank])
        return float((np.minimum(ends[touched], high[rank]) - np.maximum(starts[touched], low[rank])).max())

    after = float(1 - ends[end[fullest] - 1] / total)
    return float(held[fullest]), largest_part(fullest), after, float(held[last]), largest_part(last)
