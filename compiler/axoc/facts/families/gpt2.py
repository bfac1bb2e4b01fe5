"""GPT-2: learned positions, and Conv1D where others have linear layers."""

from __future__ import annotations

from typing import Any

from axoc.facts.families.base import ModelFamily, read_shape
from axoc.facts.families.linears import LinearShape, fused_attention, mlp_linear
from axoc.facts.families.reader import ConfigReader
from axoc.ir.facts import ModelFacts

NAMES = {
    "hidden_size": "n_embd",
    "intermediate_size": "n_inner",
    "num_layers": "n_layer",
    "num_heads": "n_head",
    "max_position_embeddings": "n_positions",
}


class Gpt2Family(ModelFamily):
    name = "gpt2"
    model_types = ("gpt2",)
    decoder_block = "GPT2Block"
    blocks = "transformer.h"
    embedding = "wte"

    def read(self, reader: ConfigReader) -> dict[str, Any]:
        width = 4 * reader.count("n_embd")
        shape = read_shape(reader, max_positions=1024, names=NAMES, defaults={"intermediate_size": width})
        return shape.as_dict() | {
            "num_kv_heads": shape.num_heads,
            "head_dim": shape.hidden_size // shape.num_heads,
            "tie_word_embeddings": reader.flag("tie_word_embeddings", True),
            "activation": reader.text("activation_function", "gelu_new"),
            "gated_mlp": False,
            "norm": "layernorm",
            "attention_bias": True,
            "attention_output_bias": True,
            "mlp_bias": True,
            "learned_positions": True,
        }

    def linears(self, model: ModelFacts) -> tuple[LinearShape, ...]:
        hidden, width, layers = model.hidden_size, model.intermediate_size, model.num_layers
        return (
            *fused_attention(model, "attn.c_attn", "attn.c_proj"),
            mlp_linear(model, "mlp.c_fc", hidden, width, layers),
            mlp_linear(model, "mlp.c_proj", width, hidden, layers),
        )
