"""LinearShape: the linear layers of a decoder block, under the names transformers gives them."""

from __future__ import annotations

from dataclasses import dataclass

from axoc.ir.facts import ModelFacts


@dataclass(frozen=True, kw_only=True)
class LinearShape:
    """One linear layer of a block. Experts are not listed: transformers 5 keeps them as fused 3-D parameters."""

    path: str
    """Inside the block, e.g. ``self_attn.q_proj``."""
    in_features: int
    out_features: int
    part: str
    """``attention`` | ``mlp`` | ``shared_expert``"""
    bias: bool
    copies_per_layer: int = 1
    layers: int
    """Blocks that have it."""
    quantizable: bool = True
    """False where bitsandbytes leaves it alone: transformers replaces exact ``nn.Linear`` and Conv1D only."""

    @property
    def name(self) -> str:
        """The module's own name, e.g. ``q_proj``: what PEFT's target_modules lists."""
        return self.path.rpartition(".")[2]

    @property
    def weights(self) -> int:
        """Elements of one copy's weight."""
        return self.in_features * self.out_features

    @property
    def copies(self) -> int:
        """Copies in the whole model."""
        return self.copies_per_layer * self.layers


def separate_attention(model: ModelFacts, prefix: str = "self_attn") -> tuple[LinearShape, ...]:
    """q_proj, k_proj, v_proj and o_proj."""
    query, key = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    inputs = (("q_proj", query), ("k_proj", key), ("v_proj", key))
    projections = tuple(
        _attention(model, f"{prefix}.{name}", model.hidden_size, out, model.attention_bias) for name, out in inputs
    )
    output = _attention(model, f"{prefix}.o_proj", query, model.hidden_size, model.attention_output_bias)
    return (*projections, output)


def fused_attention(model: ModelFacts, qkv_path: str, output_path: str) -> tuple[LinearShape, ...]:
    """One projection for queries, keys and values, and the output projection."""
    query, key = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    return (
        _attention(model, qkv_path, model.hidden_size, query + 2 * key, model.attention_bias),
        _attention(model, output_path, query, model.hidden_size, model.attention_output_bias),
    )


def separate_mlp(model: ModelFacts, prefix: str = "mlp") -> tuple[LinearShape, ...]:
    """gate_proj (in a gated MLP), up_proj and down_proj of the dense layers."""
    layers = dense_layers(model)
    if layers == 0:
        return ()
    return gated_projections(model, prefix, model.intermediate_size, layers, "mlp")


def gated_projections(model: ModelFacts, prefix: str, width: int, layers: int, part: str) -> tuple[LinearShape, ...]:
    names = ("gate_proj", "up_proj") if model.gated_mlp else ("up_proj",)
    inner = tuple(mlp_linear(model, f"{prefix}.{name}", model.hidden_size, width, layers, part) for name in names)
    return (*inner, mlp_linear(model, f"{prefix}.down_proj", width, model.hidden_size, layers, part))


def mlp_linear(
    model: ModelFacts, path: str, in_features: int, out_features: int, layers: int, part: str = "mlp"
) -> LinearShape:
    return LinearShape(
        path=path, in_features=in_features, out_features=out_features, part=part, bias=model.mlp_bias, layers=layers
    )


def dense_layers(model: ModelFacts) -> int:
    """Blocks with a dense MLP."""
    return model.num_layers if model.moe is None else model.moe.num_dense_layers


def _attention(model: ModelFacts, path: str, in_features: int, out_features: int, bias: bool) -> LinearShape:
    return LinearShape(
        path=path,
        in_features=in_features,
        out_features=out_features,
        part="attention",
        bias=bias,
        layers=model.num_layers,
    )
