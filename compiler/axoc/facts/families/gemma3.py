"""Gemma 3: the text decoder, alone (gemma3_text) or nested in the multimodal config (gemma3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from axoc.facts.families.base import ModelFamily, read_shape, sliding_layers
from axoc.facts.families.reader import ConfigReader

DEFAULTS: dict[str, int] = {"num_heads": 8, "vocab_size": 262208}
"""Published multimodal configs leave these to transformers' Gemma3TextConfig."""
DEFAULT_WINDOW = 4096
DEFAULT_PATTERN = 6


class Gemma3Family(ModelFamily):
    name = "gemma3"
    model_types = ("gemma3_text", "gemma3")
    decoder_block = "Gemma3DecoderLayer"

    def read(self, reader: ConfigReader) -> dict[str, Any]:
        text = _text_reader(reader)
        shape = read_shape(text, kv_heads=4, head_dim=256, max_positions=131072, defaults=DEFAULTS)
        bias = text.flag("attention_bias", False)
        window = text.count("sliding_window", DEFAULT_WINDOW)
        pattern = text.count("sliding_window_pattern", DEFAULT_PATTERN)
        local = shape.num_layers - shape.num_layers // pattern
        return shape.as_dict() | {
            "tie_word_embeddings": text.flag("tie_word_embeddings", reader.flag("tie_word_embeddings", True)),
            "activation": text.text("hidden_activation", "gelu_pytorch_tanh"),
            "norms_per_layer": 4,
            "qk_norm": "head",
            "attention_bias": bias,
            "attention_output_bias": bias,
            "logit_softcapping": text.number("final_logit_softcapping", None),
            "attention_softcapping": text.number("attn_logit_softcapping", None),
            "sliding_window": window,
            "sliding_window_layers": sliding_layers(text, window, shape.num_layers, local),
        }

    def warnings(self, config: Mapping[str, Any]) -> tuple[str, ...]:
        if config.get("vision_config") is None and config.get("model_type") != "gemma3":
            return ()
        return ("this model can also see: axoc counts and trains its text decoder only, not the vision tower",)


def _text_reader(reader: ConfigReader) -> ConfigReader:
    nested = reader.config.get("text_config")
    if nested is None:
        return reader
    if not isinstance(nested, Mapping):
        reader.problem("text_config", nested, "a mapping")
        return reader
    text = ConfigReader(nested, reader.file, prefix="text_config.")
    text.problems = reader.problems
    return text
