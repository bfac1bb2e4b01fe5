"""Any other decoder with the usual fields: planned as if it were Llama-like, and said so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from axoc.facts.families.base import ModelFamily, read_shape
from axoc.facts.families.reader import ConfigReader


class GenericFamily(ModelFamily):
    name = "generic"
    model_types = ()
    decoder_block = ""

    def read(self, reader: ConfigReader) -> dict[str, Any]:
        shape = read_shape(reader, max_positions=2048)
        bias = reader.flag("attention_bias", False)
        window = reader.optional_count("sliding_window")
        return shape.as_dict() | {
            "decoder_block": _block(reader),
            "tie_word_embeddings": reader.flag("tie_word_embeddings", True),
            "activation": reader.text("hidden_act", "silu"),
            "attention_bias": bias,
            "attention_output_bias": bias,
            "mlp_bias": reader.flag("mlp_bias", False),
            "sliding_window": window,
            "sliding_window_layers": shape.num_layers if window else 0,
        }

    def warnings(self, config: Mapping[str, Any]) -> tuple[str, ...]:
        return (
            f"model_type {config.get('model_type')!r} is not known: sizes are those of a Llama-like decoder with the "
            "config's widths, so memory and time may be off",
        )


def _block(reader: ConfigReader) -> str:
    """Transformers names blocks after the model class: ``FooForCausalLM`` has ``FooDecoderLayer``."""
    names = reader.items("architectures") or ()
    first = names[0] if names and isinstance(names[0], str) else ""
    stem = first.removesuffix("ForCausalLM").removesuffix("LMHeadModel")
    return f"{stem}DecoderLayer" if stem.isidentifier() else ""
