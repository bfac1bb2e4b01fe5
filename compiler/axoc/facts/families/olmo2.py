"""OLMo 2: norms after attention and MLP, and over the whole query and key projections."""

from __future__ import annotations

from typing import Any

from axoc.facts.families.base import ModelFamily, read_shape
from axoc.facts.families.reader import ConfigReader


class Olmo2Family(ModelFamily):
    name = "olmo2"
    model_types = ("olmo2",)
    decoder_block = "Olmo2DecoderLayer"

    def read(self, reader: ConfigReader) -> dict[str, Any]:
        shape = read_shape(reader, max_positions=2048)
        bias = reader.flag("attention_bias", False)
        return shape.as_dict() | {
            "tie_word_embeddings": reader.flag("tie_word_embeddings", False),
            "activation": reader.text("hidden_act", "silu"),
            "qk_norm": "full",
            "attention_bias": bias,
            "attention_output_bias": bias,
        }
