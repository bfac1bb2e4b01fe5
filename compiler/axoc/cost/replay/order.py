"""In which order a model's blocks run, and its trained weights stand in the optimizer."""

from __future__ import annotations

from collections.abc import Iterator

from axoc.cost import states
from axoc.cost.blocks import Kind, groups
from axoc.cost.buckets import LIVE_ELEMENTS
from axoc.cost.columns import Columns
from axoc.cost.scenario import Scenario
from axoc.facts.parameters import linear_shapes


def blocks_in_order(scenario: Scenario) -> Iterator[Kind]:
    """Kinds of the blocks from the first to the last; those that alternate are spread evenly."""
    for group in groups(scenario):
        count = round(sum(kind.count for kind in group))
        last = group[-1].count
        for number in range(count):
            yield group[-1] if int((number + 1) * last / count) > int(number * last / count) else group[0]


def trained_elements(scenario: Scenario) -> Iterator[float]:
    """Elements of each trained weight."""
    return _all(scenario) if scenario.is_full else _adapters(scenario)


def sub_groups(scenario: Scenario, c: Columns) -> list[float]:
    """Elements that DeepSpeed updates together on one rank of a single candidate; none where it does not, or on the host.
    ZeRO-3 closes a group once it has ``sub_group_size`` elements (stage3.py, _create_fp16_sub_groups)."""
    if not float(states.masters(scenario, c)[0]):
        return []
    ranks, most = float(c.optimizer_shards[0]), LIVE_ELEMENTS if bool(c.uses("zero3")[0]) else float("inf")
    found = [0.0]
    for elements in trained_elements(scenario):
        if found[-1] >= most:
            found.append(0.0)
        found[-1] += elements / ranks
    return found


def _all(scenario: Scenario) -> Iterator[float]:
    """Embedding, matrices of each block and what else it has, head."""
    sizes = scenario.sizes
    yield float(sizes.embedding)
    for _ in range(scenario.model.num_layers):
        yield from block_elements(scenario)
    yield float(sizes.lm_head)


def block_elements(scenario: Scenario) -> list[float]:
    """Of each matrix of one block, and of all else that it has."""
    layers = scenario.model.num_layers
    matrices = [float(shape.weights) for shape in linear_shapes(scenario.model) if shape.layers == layers]
    return [*matrices, float(scenario.sizes.blocks) / layers - sum(matrices)]


def _adapters(scenario: Scenario) -> Iterator[float]:
    """Matrices of the adapters, taken alike, and modules that are trained whole."""
    count = max(1, 2 * scenario.sizes.lora_targets * scenario.model.num_layers)
    yield from [(scenario.trainable - scenario.sizes.saved) / count] * count
    yield float(scenario.sizes.saved)
