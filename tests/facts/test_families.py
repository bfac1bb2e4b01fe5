"""Families: what each reads from a config.json, with transformers' defaults where fields are omitted."""

from __future__ import annotations

from typing import Any

import pytest
from axoc.errors import UserError
from axoc.facts.models import lookup_model
from axoc.ir.facts import ModelFacts

SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "vocab_size": 512,
}


def facts(model_type: str | None, **fields: Any) -> ModelFacts:
    config = {**SHAPE, **({"model_type": model_type} if model_type else {}), **fields}
    return lookup_model("some/model", {k: v for k, v in config.items() if v != "absent"}, "config.json", "auto")[0]


def test_omitted_fields_take_transformers_defaults() -> None:
    llama = facts("llama")
    assert (llama.num_kv_heads, llama.head_dim, llama.tie_word_embeddings) == (8, 8, False)
    assert facts("llama", num_key_value_heads=None).num_kv_heads == 8
    assert (facts("mistral").num_kv_heads, facts("mistral").sliding_window) == (8, 4096)
    assert facts("mistral", sliding_window=None).sliding_window is None
    assert facts("qwen3").head_dim == 128
    assert (facts("gemma2").head_dim, facts("gemma2").tie_word_embeddings) == (256, True)
    assert facts("falcon").tie_word_embeddings is True
    assert facts("gpt_neox").tie_word_embeddings is False


def test_experts_are_counted_by_either_name() -> None:
    """As published, and as transformers 5 saves them."""
    for name in ("num_experts", "num_local_experts"):
        moe = facts("qwen3_moe", **{name: 4}).moe
        assert moe is not None and moe.num_experts == 4


def test_head_dim_apart_from_hidden_size() -> None:
    assert facts("mistral", head_dim=16).head_dim == 16


def test_biases() -> None:
    qwen2, neox = facts("qwen2"), facts("gpt_neox")
    assert (qwen2.attention_bias, qwen2.attention_output_bias, qwen2.mlp_bias) == (True, False, False)
    assert (neox.attention_bias, neox.attention_output_bias, neox.mlp_bias) == (True, True, True)


@pytest.mark.parametrize(
    ("fields", "heads", "norms"),
    [
        ({}, 1, 1),
        ({"num_kv_heads": 8}, 1, 1),
        ({"multi_query": False}, 8, 1),
        ({"new_decoder_architecture": True, "num_kv_heads": 2}, 2, 2),
        ({"parallel_attn": False}, 1, 2),
    ],
)
def test_falcon_attention_variants(fields: dict[str, Any], heads: int, norms: int) -> None:
    falcon = facts("falcon", intermediate_size="absent", **fields)
    assert (falcon.num_kv_heads, falcon.norms_per_layer, falcon.intermediate_size) == (heads, norms, 256)


def test_sliding_windows_by_layer() -> None:
    assert facts("qwen2", sliding_window=128, max_window_layers=0).sliding_window_layers == 0
    used = facts("qwen2", sliding_window=128, use_sliding_window=True, max_window_layers=4)
    assert (used.sliding_window, used.sliding_window_layers) == (128, 2)
    assert facts("gemma2").sliding_window_layers == 3
    assert facts("gemma3_text").sliding_window_layers == 5
    kinds = ["sliding_attention"] * 2 + ["full_attention"] * 4
    assert facts("gemma3_text", layer_types=kinds).sliding_window_layers == 2


def test_gemma3_reads_the_nested_text_config_and_says_that_vision_is_left_out() -> None:
    text = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 6}
    config = {"model_type": "gemma3", "text_config": text, "vision_config": {}}
    model, warnings = lookup_model("g", config, "config.json", "auto")
    assert (model.family, model.num_heads, model.num_kv_heads, model.vocab_size) == ("gemma3", 8, 4, 262208)
    assert "vision" in warnings[0]


def test_moe_layers() -> None:
    moe = facts("qwen3_moe", num_experts=4, mlp_only_layers=[0], decoder_sparse_step=2).moe
    assert moe is not None
    assert moe.num_dense_layers == 3  # 0, 2 and 4 by the step; 0 by name too, counted once
    mixtral = facts("mixtral", num_local_experts=4, num_key_value_heads=4).moe
    assert mixtral is not None and (mixtral.num_experts, mixtral.expert_intermediate_size) == (4, 160)


def test_latent_attention() -> None:
    model = facts("deepseek_v2", q_lora_rank=None, num_experts_per_tok=2, n_shared_experts=2, moe_intermediate_size=32)
    assert model.attention_kind == "MLA"
    assert model.mla is not None and model.mla.q_lora_rank is None
    assert model.moe is not None and model.moe.shared_intermediate_size == 64


def test_gpt2_names() -> None:
    config = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 99}
    model = lookup_model(None, config, "config.json", "auto")[0]
    assert (model.intermediate_size, model.max_position_embeddings, model.learned_positions) == (256, 1024, True)


def test_unknown_model_type_is_planned_as_generic_with_a_warning() -> None:
    config = {**SHAPE, "model_type": "brandnew", "architectures": ["BrandNewForCausalLM"]}
    model, warnings = lookup_model("x", config, "config.json", "auto")
    assert (model.family, model.decoder_block) == ("generic", "BrandNewDecoderLayer")
    assert "brandnew" in warnings[0]


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"model_type": "bloom", "n_layer": 3, "n_head": 4, "hidden_size": 64}, (64, 256, 3, 4)),
        (
            {"model_type": "opt", "num_hidden_layers": 2, "num_attention_heads": 8, "hidden_size": 64, "ffn_dim": 99},
            (64, 99, 2, 8),
        ),
        ({"model_type": "mamba", "num_hidden_layers": 2, "hidden_size": 64}, (64, 256, 2, 1)),
        ({"model_type": "nemotron_h", "layers_block_type": ["m", "a", "m"], "hidden_size": 64}, (64, 256, 3, 1)),
        (
            {"model_type": "new", "text_config": {"d_model": 64, "n_layers": 2, "n_heads": 2, "vocab_size": 9}},
            (64, 256, 2, 2),
        ),
        ({"model_type": "qwen2_moe", "n_layer": 2, "hidden_size": 64, "sliding_window": 0}, (64, 256, 2, 1)),
    ],
)
def test_what_other_architectures_call_their_sizes(config: dict[str, Any], found: tuple[int, ...]) -> None:
    model, _ = lookup_model("x", {"vocab_size": 99, **config}, "config.json", "auto")
    assert (model.hidden_size, model.intermediate_size, model.num_layers, model.num_heads) == found
    assert model.family == "generic" and model.sliding_window is None


def test_experts_of_an_unknown_architecture_are_counted() -> None:
    experts = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "model_type": "brandnew"}
    model, _ = lookup_model("x", {**SHAPE, **experts}, "config.json", "auto")
    assert model.moe is not None and (model.moe.num_experts, model.moe.expert_intermediate_size) == (8, 32)


def test_an_encoder_in_front_is_refused_when_it_is_planned() -> None:
    with pytest.raises(UserError, match="is_encoder_decoder"):
        lookup_model("x", {**SHAPE, "model_type": "t5", "is_encoder_decoder": True}, "config.json", "auto")


def test_every_problem_of_a_config_is_named_at_once() -> None:
    config = {"model_type": "llama", "hidden_size": "big", "num_hidden_layers": True, "num_attention_heads": 0}
    with pytest.raises(UserError) as caught:
        lookup_model("x", {**config, "mlp_bias": "yes"}, "bad/config.json", "auto")
    messages = " ".join(d.message for d in caught.value.diagnostics)
    for name in (
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "vocab_size",
        "mlp_bias",
    ):
        assert name in messages
    assert {d.file for d in caught.value.diagnostics} == {"bad/config.json"}


def test_a_problem_is_told_once_though_its_field_is_read_twice() -> None:
    with pytest.raises(UserError) as caught:
        lookup_model("x", {**SHAPE, "model_type": "falcon", "hidden_size": None}, "config.json", "auto")
    assert len(caught.value.diagnostics) == 1


@pytest.mark.parametrize("fields", [{"num_attention_heads": 7}, {"num_key_value_heads": 3}])
def test_heads_that_do_not_divide(fields: dict[str, int]) -> None:
    with pytest.raises(UserError, match="heads"):
        facts("llama", **fields)
