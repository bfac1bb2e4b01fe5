"""A model is trained without a cache of keys and values, and saved with the base's own choice."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from axoc_runtime.checkpoint.save import save_trained
from axoc_runtime.models.load import load_trainable
from axoc_runtime.models.merge import merge

from .jobs import LORA, make_job


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("base")
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "max_position_embeddings": 256}
    LlamaForCausalLM(LlamaConfig(vocab_size=104, num_hidden_layers=1, **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("adapter", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("own", [True, False, None])
def test_the_saved_model_has_the_bases_choice(
    tmp_path: Path, base: Path, tokenizer: Any, own: bool | None, adapter: dict[str, Any] | None
) -> None:
    config = json.loads((base / "config.json").read_text())
    config.pop("use_cache", None)
    (base / "config.json").write_text(json.dumps(config | ({} if own is None else {"use_cache": own})))
    job = make_job(tmp_path, model__id=str(base), adapter=adapter)
    model = load_trainable(job, torch.device("cpu"))
    assert model.config.use_cache is False
    accelerator = SimpleNamespace(unwrap_model=lambda m: m, wait_for_everyone=lambda: None)
    save_trained(job, SimpleNamespace(accelerator=accelerator, model_wrapped=model), tokenizer)
    assert model.config.use_cache is False, "evaluated further as it was trained"
    if adapter is not None:
        merge(job)
    saved = json.loads((job.output / "final/config.json").read_text())
    assert saved["use_cache"] is (own is not False)  # Llama's default
