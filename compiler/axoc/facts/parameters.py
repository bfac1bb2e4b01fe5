"""Parameter counts of a model, split as the memory model needs them; those of an adapter on it are in adapters.py."""

from __future__ import annotations

from dataclasses import dataclass

from axoc.facts.adapters import ExpertTarget, lora_parameters, targeted_experts, targeted_linears
from axoc.facts.families.linears import LinearShape
from axoc.facts.families.registry import family_named
from axoc.ir.facts import ModelFacts

__all__ = [
    "ExpertTarget",
    "LinearShape",
    "ParameterCount",
    "count_parameters",
    "linear_shapes",
    "lora_parameters",
    "norm_elements",
    "targeted_experts",
    "targeted_linears",
]


@dataclass(frozen=True, kw_only=True)
class ParameterCount:
    """Elements, not bytes. ``*_per_layer`` is one block; totals take the number of blocks into account."""

    embedding: int
    positions: int
    """Learned positions; 0 with rotary ones."""
    lm_head: int
    """0 where tied to the embedding."""
    attention_per_layer: int
    """Weights of the attention's linear layers."""
    mlp_per_layer: int
    """Weights of the MLP's linear layers in a dense block; 0 where every block has experts."""
    experts_per_layer: int
    """All routed experts of an MoE block (fused 3-D parameters)."""
    router_per_layer: int
    shared_experts_per_layer: int
    norms_per_layer: int
    """Norm weights and biases, those inside the attention included."""
    final_norm: int
    attention_biases_per_layer: int
    mlp_biases_per_layer: int
    """In a dense block."""
    shared_expert_biases_per_layer: int
    lm_head_bias: int
    dense_layers: int
    moe_layers: int

    @property
    def layers(self) -> int:
        return self.dense_layers + self.moe_layers

    @property
    def biases(self) -> int:
        """Biases of all linear layers of the model."""
        blocks = self.layers * self.attention_biases_per_layer + self.dense_layers * self.mlp_biases_per_layer
        return blocks + self.moe_layers * self.shared_expert_biases_per_layer + self.lm_head_bias

    @property
    def dense_block(self) -> int:
        """One block with a dense MLP, norms and biases included."""
        return self._block_base + self.mlp_per_layer + self.mlp_biases_per_layer

    @property
    def moe_block(self) -> int:
        """One block with experts, all of them."""
        shared = self.shared_experts_per_layer + self.shared_expert_biases_per_layer
        return self._block_base + self.experts_per_layer + self.router_per_layer + shared

    @property
    def largest_block(self) -> int:
        return max(self.dense_block if self.dense_layers else 0, self.moe_block if self.moe_layers else 0)

    @property
    def blocks(self) -> int:
        return self.dense_layers * self.dense_block + self.moe_layers * self.moe_block

    @property
    def total(self) -> int:
        ends = self.embedding + self.positions + self.final_norm + self.lm_head + self.lm_head_bias
        return ends + self.blocks

    @property
    def _block_base(self) -> int:
        return self.attention_per_layer + self.attention_biases_per_layer + self.norms_per_layer


def count_parameters(model: ModelFacts) -> ParameterCount:
    """Exact counts: those of transformers' causal LM class built from the same config."""
    shapes = linear_shapes(model)
    moe = model.moe
    matrix = model.vocab_size * model.hidden_size
    expert = (3 if model.gated_mlp else 2) * model.hidden_size * (moe.expert_intermediate_size if moe else 0)
    norm = norm_elements(model)
    dense = model.num_layers if moe is None else moe.num_dense_layers
    return ParameterCount(
        embedding=matrix,
        positions=model.max_position_embeddings * model.hidden_size if model.learned_positions else 0,
        lm_head=0 if model.tie_word_embeddings else matrix,
        attention_per_layer=_weights(shapes, "attention"),
        mlp_per_layer=_weights(shapes, "mlp"),
        experts_per_layer=moe.num_experts * expert if moe else 0,
        router_per_layer=moe.num_experts * model.hidden_size if moe else 0,
        shared_experts_per_layer=_weights(shapes, "shared_expert"),
        norms_per_layer=model.norms_per_layer * norm + family_named(model.family).attention_norms(model),
        final_norm=norm if model.final_norm else 0,
        attention_biases_per_layer=_biases(shapes, "attention"),
        mlp_biases_per_layer=_biases(shapes, "mlp"),
        shared_expert_biases_per_layer=_biases(shapes, "shared_expert"),
        lm_head_bias=model.vocab_size if model.lm_head_bias else 0,
        dense_layers=dense,
        moe_layers=model.num_layers - dense,
    )


def norm_elements(model: ModelFacts) -> int:
    """Elements of one norm over the residual stream: a weight, and a bias in a plain LayerNorm."""
    return {"rmsnorm": 1, "layernorm_nobias": 1, "layernorm": 2}[model.norm] * model.hidden_size


def linear_shapes(model: ModelFacts) -> tuple[LinearShape, ...]:
    """Every linear layer inside the decoder blocks, in the order of transformers' modules.

    Experts and routers are left out: transformers 5 keeps them as parameters, not nn.Linear, so bitsandbytes does not
    quantize them (seen in 5.17.0: mixtral, qwen3_moe, deepseek_v2, deepseek_v3). For adapters see adapters.py.
    """
    return family_named(model.family).linears(model)


def _weights(shapes: tuple[LinearShape, ...], part: str) -> int:
    return sum(s.weights * s.copies_per_layer for s in shapes if s.part == part)


def _biases(shapes: tuple[LinearShape, ...], part: str) -> int:
    return sum(s.out_features * s.copies_per_layer for s in shapes if s.part == part and s.bias)
