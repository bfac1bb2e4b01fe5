"""Architectures that axoc has no facts about: transformers' own code is traced from a config.json alone."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from .shapes import SIZES, job

pytestmark = pytest.mark.slow
UNKNOWN = {
    "granite": {**SIZES, "tie_word_embeddings": False},
    "cohere": {**SIZES},
    "starcoder2": {**SIZES, "sliding_window": None},
}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_a_model_axoc_does_not_know_is_traced(tmp_path: Path, kind: str) -> None:
    import torch
    from axoc_runtime.trace.extrapolate import trace
    from axoc_runtime.trace.model import library_config
    from transformers import AutoModelForCausalLM

    assert kind not in {point.name for point in entry_points(group="axoc.model_families")}
    config: dict[str, Any] = {"model_type": kind, **UNKNOWN[kind], "num_hidden_layers": 3}
    made = job(tmp_path, config, model__decoder_block="")
    with torch.device("meta"):
        total = sum(p.numel() for p in AutoModelForCausalLM.from_config(library_config(config)).parameters())
    found = trace(made, config)
    workspaces = 2 * (32 << 20) + 2 * (1 << 20)  # cuBLAS and cuBLASLt, one each for both threads
    assert 16 * total < found.phases["optimizer"] < 16 * total + workspaces + 4096 * 60
    assert found.phases["loss"] > found.phases["load"]


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        ("opt", {"ffn_dim": 128, "word_embed_proj_dim": 64}),  # draws which blocks to skip, and makes a mask for itself
        ("bart", {"d_model": 64, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 128}),
        (
            "llama4_text",
            {"num_local_experts": 2, "intermediate_size_mlp": 128},
        ),  # names a decoder that it does not have
        ("openai-gpt", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256}),  # its blocks answer with lists
        ("prophetnet", {"num_encoder_layers": 2, "num_decoder_layers": 2}),
        ("modernbert-decoder", {"pad_token_id": 0}),  # begins with truncated normals
        (
            "mamba2",
            {"time_step_limit": [0.0, {"__float__": "Infinity"}], "num_heads": 8, "head_dim": 16},
        ),  # a number that JSON has not
        (
            "nemotron_h",
            {"hybrid_override_pattern": "M*-", "mamba_num_heads": 8, "mamba_head_dim": 16},
        ),  # as it is published
    ],
)
def test_code_that_looks_at_values_or_has_names_of_its_own_is_traced(
    tmp_path: Path, kind: str, own: dict[str, Any]
) -> None:
    from axoc_runtime.trace.extrapolate import trace

    sizes = {k: v for k, v in SIZES.items() if "_layers" not in k} if "num_decoder_layers" in own else SIZES
    config: dict[str, Any] = {"model_type": kind, **sizes, "vocab_size": 512, **own}
    config |= {"is_encoder_decoder": False, "is_decoder": True}  # as a decoder alone is saved
    if "n_layer" not in own and "num_decoder_layers" not in own:
        config["num_hidden_layers"] = len(own.get("hybrid_override_pattern", "ab"))
    made = job(tmp_path, config, model__family="generic", model__dtype="bfloat16")
    found = trace(made, config)
    assert found.phases["loss"] > found.phases["load"] > 0


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"model_type": "bert"}, "bert is an encoder"),
        ({"model_type": "jetmoe", "num_local_experts": 2}, "looks at a tensor's values"),
    ],
)
def test_what_no_trace_can_follow_is_told(tmp_path: Path, config: dict[str, Any], told: str) -> None:
    from axoc_runtime.errors import RuntimeFailure
    from axoc_runtime.trace.__main__ import traced

    config |= SIZES | {"num_hidden_layers": 2}
    with pytest.raises(RuntimeFailure, match=told):
        traced(job(tmp_path, config, model__family="generic"), config)


def test_an_accelerator_the_trace_does_not_know_is_told(tmp_path: Path) -> None:
    from axoc_runtime.trace.device import DEVICES, device_named
    from axoc_runtime.trace.extrapolate import assumptions

    config = {"model_type": "llama"}
    assert assumptions(job(tmp_path, config)) == ()
    (note,) = assumptions(job(tmp_path, config, expect__accelerator="mi300x-192gb"))
    assert "does not know mi300x-192gb" in note and "A100" in note
    assert device_named("mi300x-192gb") is DEVICES["a100"]
