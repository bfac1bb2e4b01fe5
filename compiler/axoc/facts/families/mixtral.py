"""Mixtral: Mistral's attention, and in every layer experts behind a router."""

from __future__ import annotations

from typing import Any

from axoc.facts.families.base import ModelFamily, read_shape
from axoc.facts.families.reader import ConfigReader
from axoc.ir.facts import MoeFacts


class MixtralFamily(ModelFamily):
    name = "mixtral"
    model_types = ("mixtral",)
    decoder_block = "MixtralDecoderLayer"
    expert_projections = ("w1", "w3", "w2")

    def read(self, reader: ConfigReader) -> dict[str, Any]:
        shape = read_shape(reader, kv_heads=8, max_positions=131072)
        window = reader.optional_count("sliding_window")
        moe = MoeFacts(
            num_experts=reader.count("num_local_experts", 8),
            experts_per_token=reader.count("num_experts_per_tok", 2),
            expert_intermediate_size=shape.intermediate_size,
        )
        return shape.as_dict() | {
            "tie_word_embeddings": reader.flag("tie_word_embeddings", False),
            "activation": reader.text("hidden_act", "silu"),
            "sliding_window": window,
            "sliding_window_layers": shape.num_layers if window else 0,
            "moe": moe,
        }
