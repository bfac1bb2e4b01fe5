"""Phi-3, Phi-3.5 and Phi-4 (model_type phi3): q, k and v in one projection, gate and up in another."""

from __future__ import annotations

from typing import Any

from axoc.facts.families.base import ModelFamily, read_shape
from axoc.facts.families.linears import LinearShape, fused_attention, mlp_linear
from axoc.facts.families.reader import ConfigReader
from axoc.ir.facts import ModelFacts


class Phi3Family(ModelFamily):
    name = "phi3"
    model_types = ("phi3",)
    decoder_block = "Phi3DecoderLayer"

    def read(self, reader: ConfigReader) -> dict[str, Any]:
        shape = read_shape(reader, max_positions=4096)
        window = reader.optional_count("sliding_window")
        return shape.as_dict() | {
            "tie_word_embeddings": reader.flag("tie_word_embeddings", False),
            "activation": reader.text("hidden_act", "silu"),
            "sliding_window": window,
            "sliding_window_layers": shape.num_layers if window else 0,
        }

    def linears(self, model: ModelFacts) -> tuple[LinearShape, ...]:
        hidden, width, layers = model.hidden_size, model.intermediate_size, model.num_layers
        return (
            *fused_attention(model, "self_attn.qkv_proj", "self_attn.o_proj"),
            mlp_linear(model, "mlp.gate_up_proj", hidden, 2 * width, layers),
            mlp_linear(model, "mlp.down_proj", width, hidden, layers),
        )
