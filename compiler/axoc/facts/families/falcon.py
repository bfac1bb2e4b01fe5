"""Falcon 7B, 40B and 180B: multi-query or grouped attention beside the MLP, not before it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from axoc.facts.families.base import ModelFamily, read_shape
from axoc.facts.families.linears import LinearShape, fused_attention, mlp_linear
from axoc.facts.families.reader import ConfigReader
from axoc.ir.facts import ModelFacts


class FalconFamily(ModelFamily):
    name = "falcon"
    model_types = ("falcon",)
    decoder_block = "FalconDecoderLayer"
    blocks = "transformer.h"
    embedding = "word_embeddings"

    def read(self, reader: ConfigReader) -> dict[str, Any]:
        hidden = reader.count("hidden_size")
        widths = {"num_kv_heads": "num_kv_heads", "intermediate_size": "ffn_hidden_size"}
        shape = read_shape(reader, max_positions=2048, names=widths, defaults={"intermediate_size": 4 * hidden})
        bias = reader.flag("bias", False)
        return shape.as_dict() | {
            "num_kv_heads": _kv_heads(reader, shape.num_kv_heads),
            "tie_word_embeddings": reader.flag("tie_word_embeddings", True),
            "activation": reader.text("activation", "gelu"),
            "gated_mlp": False,
            "norm": "layernorm",
            "norms_per_layer": _norms(reader),
            "attention_bias": bias,
            "attention_output_bias": bias,
            "mlp_bias": bias,
        }

    def linears(self, model: ModelFacts) -> tuple[LinearShape, ...]:
        hidden, width, layers = model.hidden_size, model.intermediate_size, model.num_layers
        shapes = (
            *fused_attention(model, "self_attention.query_key_value", "self_attention.dense"),
            mlp_linear(model, "mlp.dense_h_to_4h", hidden, width, layers),
            mlp_linear(model, "mlp.dense_4h_to_h", width, hidden, layers),
        )
        # FalconLinear is a subclass of nn.Linear: PEFT adapts it, bitsandbytes' replacement passes it by
        return tuple(replace(shape, quantizable=False) for shape in shapes)


def _kv_heads(reader: ConfigReader, given: int) -> int:
    """The old architecture ignores num_kv_heads where multi_query is on (FalconAttention)."""
    if not reader.flag("new_decoder_architecture", False) and reader.flag("multi_query", True):
        return 1
    return given


def _norms(reader: ConfigReader) -> int:
    if not reader.flag("parallel_attn", True):
        return 2
    new = reader.flag("new_decoder_architecture", False)
    return reader.count("num_ln_in_parallel_attn", 2 if new else 1)
