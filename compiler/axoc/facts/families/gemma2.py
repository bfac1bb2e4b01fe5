"""Gemma 2: four norms a layer, soft caps on scores and logits, every other layer with a sliding window."""

from __future__ import annotations

from typing import Any

from axoc.facts.families.base import ModelFamily, read_shape, sliding_layers
from axoc.facts.families.reader import ConfigReader

DEFAULT_WINDOW = 4096


class Gemma2Family(ModelFamily):
    name = "gemma2"
    model_types = ("gemma2",)
    decoder_block = "Gemma2DecoderLayer"

    def read(self, reader: ConfigReader) -> dict[str, Any]:
        shape = read_shape(reader, kv_heads=4, head_dim=256, max_positions=8192)
        bias = reader.flag("attention_bias", False)
        window = reader.count("sliding_window", DEFAULT_WINDOW)
        alternate = (shape.num_layers + 1) // 2
        return shape.as_dict() | {
            "tie_word_embeddings": reader.flag("tie_word_embeddings", True),
            "activation": reader.text("hidden_activation", "gelu_pytorch_tanh"),
            "norms_per_layer": 4,
            "attention_bias": bias,
            "attention_output_bias": bias,
            "logit_softcapping": reader.number("final_logit_softcapping", 30.0),
            "attention_softcapping": reader.number("attn_logit_softcapping", 50.0),
            "sliding_window": window,
            "sliding_window_layers": sliding_layers(reader, window, shape.num_layers, alternate),
        }
