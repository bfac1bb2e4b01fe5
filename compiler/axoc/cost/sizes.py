"""Sizes of a model as the cost model groups them, from the exact parameter counts of the facts."""

from __future__ import annotations

from dataclasses import replace

from axoc.cost.objectives import Objective
from axoc.cost.scenario import Sizes
from axoc.facts.parameters import (
    LinearShape,
    ParameterCount,
    count_parameters,
    linear_shapes,
    lora_parameters,
    targeted_linears,
)
from axoc.facts.saved import saved_modules
from axoc.ir.facts import ModelFacts
from axoc.ir.request import AdapterRequest


def sizes_of(model: ModelFacts, adapter: AdapterRequest | None) -> Sizes:
    count = count_parameters(model)
    sight = 0 if model.vision is None else model.vision.parameters
    matrix = model.vocab_size * model.hidden_size
    targets = () if adapter is None else targeted_linears(model, adapter.targets)
    names = {s.name for s in linear_shapes(model)}
    saved = saved_modules(model, () if adapter is None else adapter.modules_to_save)
    quantizable = sum(s.weights * s.copies for s in linear_shapes(model) if s.quantizable)
    return Sizes(
        total=count.total + sight,
        sight=sight,
        embedding=count.embedding + count.positions,
        lm_head=count.lm_head,
        vocabulary_matrix=matrix,
        block=count.largest_block,
        blocks=count.blocks,
        blocks_linear=_blocks_linear(count),
        blocks_quantizable=quantizable,
        active_linear=_blocks_linear(count) - _idle_experts(model, count),
        lora_input_width=_mean_width(targets, model.num_layers, "in"),
        lora_output_width=_mean_width(targets, model.num_layers, "out"),
        fused_qkv=bool(names & {"qkv_proj", "query_key_value"}),  # GPT-2's c_attn: all three are saved as views anyway
        fused_gate_up="gate_up_proj" in names,
        lora_targets=round(sum(t.copies for t in targets) / model.num_layers),
        experts=count.moe_layers * count.experts_per_layer,
        pinned_ratio=_pinned_ratio(model),
        saved=saved.elements,
        saved_embedding=saved.embedding,
        saved_head=saved.head,
    )


def _pinned_ratio(model: ModelFacts) -> float:
    """Over the linear layers and the vocabulary matrix: vectors are too small to count."""
    shapes = [(s.weights, s.copies) for s in linear_shapes(model)] + [(model.vocab_size * model.hidden_size, 1)]
    rounded = sum((1 << (n - 1).bit_length()) * times for n, times in shapes)
    return rounded / sum(n * times for n, times in shapes)


def trainable_parameters(model: ModelFacts, adapter: AdapterRequest | None) -> int:
    """All parameters, or the adapter's and those of the modules that are trained whole beside it."""
    if adapter is None:
        return count_parameters(model).total
    saved = saved_modules(model, adapter.modules_to_save).elements
    return lora_parameters(model, adapter.rank, adapter.targets, adapter.use_dora) + saved


def _blocks_linear(count: ParameterCount) -> int:
    """Weights of every matrix product inside the blocks, experts included."""
    attention = count.layers * count.attention_per_layer
    dense = count.dense_layers * count.mlp_per_layer
    sparse = count.experts_per_layer + count.router_per_layer + count.shared_experts_per_layer
    return attention + dense + count.moe_layers * sparse


def _idle_experts(model: ModelFacts, count: ParameterCount) -> int:
    """Expert weights one token does not pass."""
    if model.moe is None:
        return 0
    idle = model.moe.num_experts - model.moe.experts_per_token
    return count.moe_layers * count.experts_per_layer * idle // model.moe.num_experts


def _mean_width(targets: tuple[LinearShape, ...], layers: int, side: str) -> int:
    """Features on one side of the adapted layers of a block, averaged over the blocks."""
    widths = (t.copies * (t.in_features if side == "in" else t.out_features) for t in targets)
    return round(sum(widths) / layers)


def sizes_for(objective: Objective, model: ModelFacts, adapter: AdapterRequest | None) -> Sizes:
    """A reward model has a head of one output in the place of the vocabulary's, which nothing is tied to."""
    sizes = sizes_of(model, adapter)
    if objective.loss != "score":
        return sizes
    one = model.hidden_size
    return replace(sizes, total=sizes.total - sizes.lm_head + one, lm_head=one, vocabulary_matrix=one)


def trainable_for(objective: Objective, model: ModelFacts, adapter: AdapterRequest | None) -> int:
    """The head of one output is new, so it is trained beside an adapter too (PEFT: modules_to_save of SEQ_CLS)."""
    if objective.loss != "score":
        return trainable_parameters(model, adapter)
    if adapter is None:
        return sizes_for(objective, model, adapter).total
    return trainable_parameters(model, adapter) + model.hidden_size
