"""Qwen3, dense and MoE: a norm on each query and key head, head_dim apart from hidden_size / heads."""

from __future__ import annotations

from typing import Any

from axoc.facts.families.base import ModelFamily, read_shape
from axoc.facts.families.qwen2 import qwen_window
from axoc.facts.families.reader import ConfigReader
from axoc.ir.facts import MoeFacts


class Qwen3Family(ModelFamily):
    name = "qwen3"
    model_types = ("qwen3",)
    decoder_block = "Qwen3DecoderLayer"

    def read(self, reader: ConfigReader) -> dict[str, Any]:
        shape = read_shape(reader, head_dim=128, max_positions=32768)
        window, layers = qwen_window(reader, shape.num_layers)
        return shape.as_dict() | _common(reader) | {"sliding_window": window, "sliding_window_layers": layers}


class Qwen3MoeFamily(ModelFamily):
    name = "qwen3_moe"
    model_types = ("qwen3_moe",)
    decoder_block = "Qwen3MoeDecoderLayer"
    expert_projections = ("gate_proj", "up_proj", "down_proj")

    def read(self, reader: ConfigReader) -> dict[str, Any]:
        """transformers 5 reads ``num_experts`` as it is published, and saves ``num_local_experts`` (its attribute_map)."""
        shape = read_shape(reader, kv_heads=4, max_positions=32768)
        window = reader.optional_count("sliding_window") if reader.flag("use_sliding_window", False) else None
        moe = MoeFacts(
            num_experts=reader.count("num_experts" if reader.has("num_experts") else "num_local_experts", 128),
            experts_per_token=reader.count("num_experts_per_tok", 8),
            expert_intermediate_size=reader.count("moe_intermediate_size", 768),
            num_dense_layers=_dense_layers(reader, shape.num_layers),
        )
        sliding = {"sliding_window": window, "sliding_window_layers": shape.num_layers if window else 0}
        return shape.as_dict() | _common(reader) | sliding | {"moe": moe}


def _common(reader: ConfigReader) -> dict[str, Any]:
    bias = reader.flag("attention_bias", False)
    return {
        "tie_word_embeddings": reader.flag("tie_word_embeddings", False),
        "activation": reader.text("hidden_act", "silu"),
        "qk_norm": "head",
        "attention_bias": bias,
        "attention_output_bias": bias,
    }


def _dense_layers(reader: ConfigReader, num_layers: int) -> int:
    """As modeling_qwen3_moe decides it: layers of mlp_only_layers, and those that decoder_sparse_step skips."""
    only = set(reader.items("mlp_only_layers") or ())
    step = reader.count("decoder_sparse_step", 1)
    return sum(layer in only or (layer + 1) % step != 0 for layer in range(num_layers))
