"""Adafactor's temporaries: it updates one matrix after the other, from single operations.

Source: transformers/optimization.py, Adafactor.step. In fp32 the square of the gradient and its sum with a constant, later
the update and its negative; for weights of a lower precision fp32 copies of gradient and weight too. The names of the
matrix before still hold its last update while the next one's square is made.
"""

from __future__ import annotations

from typing import Final

from axoc.cost.scenario import Scenario
from axoc.facts.parameters import linear_shapes, targeted_linears

FP32: Final = 4.0


def adafactor_bytes(scenario: Scenario) -> float:
    """At the top of the step."""
    matrices = trained_matrices(scenario)
    copies = copies_of_a_matrix(scenario)
    before = [0, *matrices[:-1]]
    return max(FP32 * (copies * own + last) for own, last in zip(matrices, before, strict=True))


def copies_of_a_matrix(scenario: Scenario) -> int:
    """fp32 tensors as large as the matrix that is updated, at the top."""
    return 2 if scenario.trainable_bytes == FP32 else 4


def trained_matrices(scenario: Scenario) -> list[int]:
    """Elements of each trained weight with two dimensions or more, in the order of the step."""
    sizes = scenario.sizes
    if scenario.is_full:
        return [sizes.embedding, *_block_matrices(scenario), *([sizes.lm_head] if sizes.lm_head else [])]
    adapter = scenario.adapter
    assert adapter is not None
    pairs = [
        n * adapter.rank
        for t in targeted_linears(scenario.model, adapter.targets)
        for n in (t.in_features, t.out_features)
    ]
    return [*pairs, *([sizes.vocabulary_matrix] if sizes.saved else [])] or [0]


def _block_matrices(scenario: Scenario) -> list[int]:
    """Of the last block: linear layers, the experts' two fused parameters and the router, which comes first in Mixtral."""
    model = scenario.model
    shapes, moe = linear_shapes(model), model.moe
    if moe is None or moe.num_dense_layers == model.num_layers:
        return [shape.weights for shape in shapes]
    router = moe.num_experts * model.hidden_size
    experts = [router * 2 * moe.expert_intermediate_size, router * moe.expert_intermediate_size]
    sparse = [router, *experts] if model.family == "mixtral" else [*experts, router]
    apart = [shape.weights for shape in shapes if shape.part == "shared_expert"]
    return [*(shape.weights for shape in shapes if shape.part != "shared_expert"), *sparse, *apart]
