"""How many modules torch keeps a model as: what Python does for each of them is paid by their number."""

from __future__ import annotations

from typing import Final

from axoc.cost.scenario import Scenario
from axoc.facts.parameters import linear_shapes, targeted_linears
from axoc.ir.facts import ModelFacts

ADAPTER_MODULES: Final = 10
"""Of an adapted layer: the wrapper, both matrices, their holders, dropout and its holder, and the holders of embeddings'
matrices and of magnitudes (peft/tuners/lora/layer.py, LoraLayer)."""
CONTAINERS: Final = 4
"""Of a block: itself, its attention, its MLP and the activation."""
EXPERTS: Final = 2
"""The router, and all experts, which are one module."""
ENDS: Final = 7
"""Both models, embedding, list of blocks, last norm, rotary tables and head."""


def modules(scenario: Scenario) -> float:
    """Of the whole model, and of its adapters. Dropouts that do nothing, which some families have, are left out."""
    return _plain(scenario.model) + _added(scenario)


def _plain(model: ModelFacts) -> float:
    linears = sum(shape.copies for shape in linear_shapes(model))
    norms = model.norms_per_layer + (2 if model.qk_norm != "none" else 0)
    experts = 0 if model.moe is None else EXPERTS * (model.num_layers - model.moe.num_dense_layers)
    return float(linears + (norms + CONTAINERS) * model.num_layers + experts + ENDS)


def _added(scenario: Scenario) -> float:
    adapter = scenario.adapter
    if adapter is None:
        return 0.0
    return float(ADAPTER_MODULES * sum(target.copies for target in targeted_linears(scenario.model, adapter.targets)))
