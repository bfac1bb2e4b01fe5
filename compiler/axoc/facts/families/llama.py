"""Llama 1 to 3.3, and what shares its config: SmolLM2, TinyLlama, DeepSeek LLM, Yi, Vicuna."""

from __future__ import annotations

from typing import Any

from axoc.facts.families.base import ModelFamily, read_shape
from axoc.facts.families.reader import ConfigReader


class LlamaFamily(ModelFamily):
    name = "llama"
    model_types = ("llama",)
    decoder_block = "LlamaDecoderLayer"

    def read(self, reader: ConfigReader) -> dict[str, Any]:
        shape = read_shape(reader, max_positions=2048)
        bias = reader.flag("attention_bias", False)
        return shape.as_dict() | {
            "tie_word_embeddings": reader.flag("tie_word_embeddings", False),
            "activation": reader.text("hidden_act", "silu"),
            "attention_bias": bias,
            "attention_output_bias": bias,
            "mlp_bias": reader.flag("mlp_bias", False),
        }
