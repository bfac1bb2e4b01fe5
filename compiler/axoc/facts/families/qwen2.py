"""Qwen2 and Qwen2.5: Llama's block with bias on the q, k and v projections."""

from __future__ import annotations

from typing import Any

from axoc.facts.families.base import ModelFamily, read_shape, sliding_layers
from axoc.facts.families.reader import ConfigReader


class Qwen2Family(ModelFamily):
    name = "qwen2"
    model_types = ("qwen2",)
    decoder_block = "Qwen2DecoderLayer"

    def read(self, reader: ConfigReader) -> dict[str, Any]:
        shape = read_shape(reader, max_positions=32768)
        window, layers = qwen_window(reader, shape.num_layers)
        return shape.as_dict() | {
            "tie_word_embeddings": reader.flag("tie_word_embeddings", False),
            "activation": reader.text("hidden_act", "silu"),
            "attention_bias": True,
            "sliding_window": window,
            "sliding_window_layers": layers,
        }


def qwen_window(reader: ConfigReader, num_layers: int) -> tuple[int | None, int]:
    """The window and the layers that have it: published configs name one and switch it off by use_sliding_window."""
    if not reader.flag("use_sliding_window", False):
        return None, 0
    window = reader.count("sliding_window", 4096)
    first = reader.count("max_window_layers", 28, minimum=0)
    return window, sliding_layers(reader, window, num_layers, max(0, num_layers - first))
