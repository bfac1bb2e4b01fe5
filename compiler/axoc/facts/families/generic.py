"""Any other decoder: planned as if it were Llama-like with the config's widths, and said so. The run finds its layers itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from axoc.facts.families.base import ModelFamily, Shape
from axoc.facts.families.reader import ConfigReader
from axoc.ir.facts import MoeFacts

NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "hidden_size": ("hidden_size", "d_model", "n_embd", "emb_dim", "embedding_dim", "dim"),
    "intermediate_size": (
        "intermediate_size", "ffn_hidden_size", "ffn_dim", "decoder_ffn_dim", "n_inner", "d_ff", "mlp_dim",
    ),
    "num_layers": (
        "num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers",
        "num_decoder_layers",
    ),
    "num_heads": (
        "num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads",
        "num_decoder_attention_heads",
    ),
    "num_kv_heads": ("num_key_value_heads", "num_kv_heads", "n_kv_heads", "multi_query_group_num"),
    "vocab_size": ("vocab_size",),
    "max_position_embeddings": ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx"),
    "num_experts": ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"),
    "experts_per_token": ("num_experts_per_tok", "moe_k", "moe_topk", "num_experts_per_token", "top_k_experts"),
    "expert_width": ("moe_intermediate_size", "expert_intermediate_size"),
    "shared_width": ("shared_expert_intermediate_size", "shared_intermediate_size"),
    "shared_experts": ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts"),
    "dense_layers": ("first_k_dense_replace", "num_dense_layers", "moe_layer_start_index"),
}  # fmt: skip
"""Of what transformers' configurations call them, the usual first."""
LISTS: Final = ("layer_types", "layers_block_type")
WIDE: Final = 4
"""Times the hidden size, where a config does not say how wide the MLP is: as GPT-2 and its heirs."""
POSITIONS: Final = 2048


class GenericFamily(ModelFamily):
    name = "generic"
    model_types = ()
    decoder_block = ""

    def read(self, reader: ConfigReader) -> dict[str, Any]:
        text = _language_part(reader)
        shape = _shape(text)
        bias = text.flag("attention_bias", False)
        window = text.config.get("sliding_window") and text.optional_count("sliding_window")  # 0: there is none
        moe = _experts(text, shape)
        return shape.as_dict() | {
            "decoder_block": _block(reader),
            "tie_word_embeddings": text.flag("tie_word_embeddings", True),
            "activation": text.text("hidden_act", "silu"),
            "gated_mlp": _named(text, "intermediate_size") == NAMES["intermediate_size"][0] or moe is not None,
            "attention_bias": bias,
            "attention_output_bias": bias,
            "mlp_bias": text.flag("mlp_bias", False),
            "sliding_window": window or None,
            "sliding_window_layers": shape.num_layers if window else 0,
            "moe": moe,
        }

    def warnings(self, config: Mapping[str, Any]) -> tuple[str, ...]:
        return (
            f"model_type {config.get('model_type')!r} is not known: sizes are those of a Llama-like decoder with the "
            "config's widths, so memory and time may be off",
        )


def _shape(reader: ConfigReader) -> Shape:
    """What a config leaves out, as those of state-space models do heads, is taken as the simplest there is."""
    if reader.flag("is_encoder_decoder", False):
        message = f"{reader.prefix}is_encoder_decoder: models that are a decoder alone are trained here"
        reader.reject(message, fix="name a decoder that continues text")
    hidden = _count(reader, "hidden_size")
    heads = _count(reader, "num_heads", 1)
    return Shape(
        hidden_size=hidden,
        intermediate_size=_count(reader, "intermediate_size", WIDE * hidden),
        num_layers=_count(reader, "num_layers", _kinds_listed(reader)),
        num_heads=heads,
        num_kv_heads=_count(reader, "num_kv_heads", heads),
        head_dim=_count(reader, "head_dim", max(1, hidden // heads)),
        vocab_size=_count(reader, "vocab_size"),
        max_position_embeddings=_count(reader, "max_position_embeddings", POSITIONS),
    )


def _kinds_listed(reader: ConfigReader) -> int | None:
    """Blocks of a hybrid, whose config lists what each is."""
    lists = (reader.config.get(name) for name in LISTS)
    return next((len(found) for found in lists if isinstance(found, list) and found), None)


def _experts(reader: ConfigReader, shape: Shape) -> MoeFacts | None:
    experts = _count(reader, "num_experts", 1)
    if experts < 2:
        return None
    width = _count(reader, "expert_width", shape.intermediate_size)
    shared = _count(reader, "shared_experts", 0) * width
    return MoeFacts(
        num_experts=experts,
        experts_per_token=min(experts, _count(reader, "experts_per_token", 2)),
        expert_intermediate_size=width,
        shared_intermediate_size=_count(reader, "shared_width", shared),
        num_dense_layers=min(_count(reader, "dense_layers", 0), shape.num_layers),
    )


def _named(reader: ConfigReader, field: str) -> str:
    """The config's name of it; the usual one where it has none."""
    names = NAMES.get(field, (field,))
    return next((name for name in names if _is_count(reader.config.get(name))), names[0])


def _count(reader: ConfigReader, field: str, default: int | None = None) -> int:
    """Lists, with a value a layer, and nulls are left out: the simplest stands for them, too."""
    name = _named(reader, field)
    if default is not None and not _is_count(reader.config.get(name)) and not isinstance(reader.config.get(name), str):
        return default
    return reader.count(name, default, minimum=0 if default == 0 else 1)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _language_part(reader: ConfigReader) -> ConfigReader:
    """Of a model that also sees or hears: its language model."""
    nested = reader.config.get("text_config")
    if not isinstance(nested, Mapping) or reader.has("hidden_size"):
        return reader
    text = ConfigReader(nested, reader.file, prefix="text_config.")
    text.problems = reader.problems
    return text


def _block(reader: ConfigReader) -> str:
    """Transformers names blocks after the model class: ``FooForCausalLM`` has ``FooDecoderLayer``."""
    names = reader.items("architectures") or ()
    first = names[0] if names and isinstance(names[0], str) else ""
    stem = first.removesuffix("ForCausalLM").removesuffix("LMHeadModel")
    return f"{stem}DecoderLayer" if stem.isidentifier() else ""
