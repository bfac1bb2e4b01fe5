"""GPT-NeoX 20B and Pythia: fused q, k, v; LayerNorm; biases everywhere."""

from __future__ import annotations

from typing import Any

from axoc.facts.families.base import ModelFamily, read_shape
from axoc.facts.families.linears import LinearShape, fused_attention, mlp_linear
from axoc.facts.families.reader import ConfigReader
from axoc.ir.facts import ModelFacts


class GptNeoxFamily(ModelFamily):
    name = "gpt_neox"
    model_types = ("gpt_neox",)
    decoder_block = "GPTNeoXLayer"
    blocks = "gpt_neox.layers"
    embedding = "embed_in"

    def read(self, reader: ConfigReader) -> dict[str, Any]:
        shape = read_shape(reader, max_positions=2048)
        bias = reader.flag("attention_bias", True)
        return shape.as_dict() | {
            "num_kv_heads": shape.num_heads,
            "head_dim": shape.hidden_size // shape.num_heads,
            "tie_word_embeddings": reader.flag("tie_word_embeddings", False),
            "activation": reader.text("hidden_act", "gelu"),
            "gated_mlp": False,
            "norm": "layernorm",
            "attention_bias": bias,
            "attention_output_bias": bias,
            "mlp_bias": True,
        }

    def linears(self, model: ModelFacts) -> tuple[LinearShape, ...]:
        hidden, width, layers = model.hidden_size, model.intermediate_size, model.num_layers
        return (
            *fused_attention(model, "attention.query_key_value", "attention.dense"),
            mlp_linear(model, "mlp.dense_h_to_4h", hidden, width, layers),
            mlp_linear(model, "mlp.dense_4h_to_h", width, hidden, layers),
        )
