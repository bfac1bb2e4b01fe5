"""How many tensors are trained: what is launched one by one is paid by their number."""

from __future__ import annotations

from axoc.cost.scenario import Scenario
from axoc.facts.parameters import linear_shapes, targeted_linears
from axoc.ir.facts import ModelFacts


def trained_tensors(scenario: Scenario) -> float:
    """Weights and biases of the whole model, or two for each adapted layer."""
    model, adapter = scenario.model, scenario.adapter
    if adapter is not None:
        return 2.0 * sum(target.copies for target in targeted_linears(model, adapter.targets))
    linears = sum(shape.copies for shape in linear_shapes(model))
    norms = model.num_layers * (model.norms_per_layer + (2 if model.qk_norm != "none" else 0)) + 1
    experts = 0 if model.moe is None else 3 * (model.num_layers - model.moe.num_dense_layers)  # router and two fused
    ends = 1 + (0 if model.tie_word_embeddings else 1) + (1 if model.learned_positions else 0)
    vectors = 2 if model.norm == "layernorm" else 1
    return float(linears + len(biases(model)) * model.num_layers + norms * vectors + experts + ends)


def matrices(scenario: Scenario) -> list[tuple[float, float, int]]:
    """(shorter side, longer side, how many) of the trained matrices inside the blocks."""
    model, adapter = scenario.model, scenario.adapter
    if adapter is None:
        return [_sides(s.in_features, s.out_features, s.copies) for s in linear_shapes(model)]
    targets, rank = targeted_linears(model, adapter.targets), adapter.rank
    return [_sides(rank, wide, t.copies) for t in targets for wide in (t.in_features, t.out_features)]


def _sides(one: int, other: int, copies: int) -> tuple[float, float, int]:
    return float(min(one, other)), float(max(one, other)), copies


def biases(model: ModelFacts) -> tuple[float, ...]:
    """Widths of the biases of one block's linear layers."""
    return tuple(float(shape.out_features) for shape in linear_shapes(model) if shape.bias)
