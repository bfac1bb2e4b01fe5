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


def test_an_accelerator_the_trace_does_not_know_is_told(tmp_path: Path) -> None:
    from axoc_runtime.trace.device import DEVICES, device_named
    from axoc_runtime.trace.extrapolate import assumptions

    config = {"model_type": "llama"}
    assert assumptions(job(tmp_path, config)) == ()
    (note,) = assumptions(job(tmp_path, config, expect__accelerator="mi300x-192gb"))
    assert "does not know mi300x-192gb" in note and "A100" in note
    assert device_named("mi300x-192gb") is DEVICES["a100"]
