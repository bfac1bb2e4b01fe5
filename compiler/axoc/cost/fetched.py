"""ZeRO-3's gathered weights for every candidate: the model's modules, run past DeepSpeed's coordinator (fetches.py)."""

from __future__ import annotations

from dataclasses import fields
from itertools import product

import numpy as np

from axoc.cost import blocks, states
from axoc.cost.buckets import LIVE_ELEMENTS, persistence_threshold_elements
from axoc.cost.columns import Bools, Columns, Floats
from axoc.cost.fetches import Gathered, Module, gathered
from axoc.cost.partition import stands_in
from axoc.cost.scenario import Scenario
from axoc.facts.parameters import linear_shapes


def fetched(scenario: Scenario, c: Columns) -> dict[str, Floats]:
    """Bytes by the moments of ``Gathered``. 0 where weights are not ZeRO-3's, or a single rank's, which are views of its share."""
    found = {f.name: np.zeros(len(c)) for f in fields(Gathered)}
    three = c.uses("zero3") & (c.data_parallel > 1)
    if not three.any():
        return found
    sizes, element = scenario.sizes, element_bytes(scenario)
    ends = _ends(scenario)
    modules = tuple(_modules(scenario, number) for number in ends)
    outside = reads_head(scenario, c)
    plain = (c.checkpointed_layers < scenario.model.num_layers) & (scenario.model.moe is not None)
    recomputed = c.checkpointed_layers
    for external, carries, saves, again in product(*[(False, True)] * 3, np.unique(recomputed[three]).tolist()):
        kinds = (outside == external) & ((c.accumulation > 1) == carries) & (plain == saves) & (recomputed == again)
        rows = three & kinds
        if rows.any():
            one = gathered(
                modules,
                sizes.embedding,
                sizes.lm_head,
                tied=not sizes.lm_head,
                external=external,
                carries=carries,
                trained=scenario.trains_embedding,
                saves=saves,
                recomputed=sum(number < again for number in ends),
            )
            for name, values in found.items():
                values[rows] = getattr(one, name) * element
    return found


def reads_head(scenario: Scenario, c: Columns) -> Bools:
    """Liger's loss reads the head's weight outside its module: DeepSpeed then makes it the whole model's own, and lets go of it
    only before a step (register_external_parameter)."""
    return scenario.each(c, lambda s: float(s.fused_loss and s.kernels == "liger")) > 0


def element_bytes(scenario: Scenario) -> float:
    """Of a gathered weight."""
    if not scenario.quantized:
        return states.module_bytes(scenario)
    return states.quantized_bytes_per_parameter(scenario)


def _ends(scenario: Scenario) -> list[int]:
    """The first and the last blocks: as many as DeepSpeed looks ahead over, and some. Of those between every one is as the last."""
    layers = scenario.model.num_layers
    each = 4 + LIVE_ELEMENTS // max(1, scenario.sizes.block)
    return [number for number in range(layers) if number < each or number >= layers - each]


def _modules(scenario: Scenario, number: int) -> tuple[Module, ...]:
    """Of block ``number``, in the order they run: each linear layer with its adapter's two matrices behind it, and all of the
    expert layer as one (emit/moe.py). Norms and whatever is as small stay gathered."""
    model, adapter = scenario.model, scenario.adapter
    targets = frozenset() if adapter is None else blocks.target_paths(model, adapter.targets)
    least = persistence_threshold_elements(model.hidden_size)
    found: list[Module] = []
    whole: list[int] = []
    for shape in linear_shapes(model):
        if not stands_in(shape, number, model.num_layers):
            continue
        if shape.part == "shared_expert":
            whole += [shape.weights] * shape.copies_per_layer
            continue
        pair = [adapter.rank * shape.in_features, adapter.rank * shape.out_features] if shape.path in targets else []  # type: ignore[union-attr]
        found += [(n,) for n in [shape.weights, *pair] * shape.copies_per_layer if n > least]
    moe = model.moe
    if moe is not None and number >= moe.num_dense_layers:
        one = moe.num_experts * moe.expert_intermediate_size * model.hidden_size
        whole += [one * (2 if model.gated_mlp else 1), one]
    return (*found, tuple(whole)) if whole else tuple(found)
