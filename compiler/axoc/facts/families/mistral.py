"""Mistral 7B and NeMo (whose head_dim is not hidden_size / heads), Mistral Small and Large."""

from __future__ import annotations

from typing import Any

from axoc.facts.families.base import ModelFamily, read_shape
from axoc.facts.families.reader import ConfigReader

DEFAULT_WINDOW = 4096
"""What transformers takes where config.json does not name sliding_window; null means none."""


class MistralFamily(ModelFamily):
    name = "mistral"
    model_types = ("mistral",)
    decoder_block = "MistralDecoderLayer"

    def read(self, reader: ConfigReader) -> dict[str, Any]:
        shape = read_shape(reader, kv_heads=8, max_positions=131072)
        absent = "sliding_window" not in reader.config
        window = DEFAULT_WINDOW if absent else reader.optional_count("sliding_window")
        return shape.as_dict() | {
            "tie_word_embeddings": reader.flag("tie_word_embeddings", False),
            "activation": reader.text("hidden_act", "silu"),
            "sliding_window": window,
            "sliding_window_layers": shape.num_layers if window else 0,
        }
