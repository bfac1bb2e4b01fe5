"""Pitfalls that the runtime meets by itself, seen without training: how it loads, saves, counts and refuses."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from axoc_runtime import preflight
from axoc_runtime.arguments import training_arguments
from axoc_runtime.errors import RuntimeFailure
from axoc_runtime.models import load, stored
from axoc_runtime.objectives.perplexity import mean_negative_log_likelihood
from axoc_runtime.objectives.sft import by_length
from axoc_runtime.prepare import check_vocabulary
from axoc_runtime.strategies import prepare_environment, strategy_arguments
from runtime.jobs import LORA, make_job

NF4 = {"method": "nf4", "double_quantization": True, "options": {}}


def loaded_with(monkeypatch: pytest.MonkeyPatch, folder: Path, **changes: Any) -> dict[str, Any]:
    """What from_pretrained is called with."""
    seen: dict[str, Any] = {}

    class Model:
        class config:  # noqa: N801
            use_cache = True

    def from_pretrained(**arguments: Any) -> type[Model]:
        seen.update(arguments)
        return Model

    monkeypatch.setattr(load.AutoModelForCausalLM, "from_pretrained", from_pretrained)
    monkeypatch.setattr(stored, "stored_by", lambda job: None)  # there is no such model to be asked
    load.load_base(make_job(folder, **changes), torch.device("cpu"))
    return seen


@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "zero2", "zero3"])
def test_exact_weights_are_loaded_without_a_device_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    seen = loaded_with(monkeypatch, tmp_path, distributed__strategy=strategy)
    assert not {"device_map", "low_cpu_mem_usage", "quantization_config"} & set(seen)
    quantized = loaded_with(monkeypatch, tmp_path, model__quantization=NF4)
    assert quantized["device_map"] == {"": torch.device("cpu")}


@pytest.mark.parametrize("mode", ["full", "selective"])
def test_checkpointing_is_never_reentrant(tmp_path: Path, mode: str) -> None:
    seen: list[dict[str, Any]] = []

    class Model:
        def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: dict[str, Any]) -> None:
            seen.append(gradient_checkpointing_kwargs)

        def modules(self) -> list[Any]:
            return []

    load.set_checkpointing(make_job(tmp_path, training__gradient_checkpointing=mode, adapter=LORA), Model())
    load.set_checkpointing(make_job(tmp_path, training__gradient_checkpointing="none"), Model())
    assert seen == [{"use_reentrant": False}]


def test_a_shells_own_accelerate_settings_do_not_reach_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCELERATE_MIXED_PRECISION", "ACCELERATE_USE_FSDP", "FSDP_VERSION"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("FSD", "kept")
    prepare_environment(make_job(tmp_path))
    assert not [n for n in os.environ if n.startswith(("ACCELERATE_", "FSDP_"))]
    assert os.environ["FSD"] == "kept"


def test_whole_checkpoints_are_saved_and_the_best_is_gone_back_to(tmp_path: Path) -> None:
    plain = training_arguments(make_job(tmp_path), evaluates=True)
    stopping = training_arguments(make_job(tmp_path, training__early_stopping_patience=2), evaluates=True)
    assert not plain.save_only_model and not plain.load_best_model_at_end
    assert not stopping.save_only_model and stopping.load_best_model_at_end


def test_fsdp_reduces_gradients_with_each_micro_batch(tmp_path: Path) -> None:
    """accelerate's default would have every rank hold them whole through a step: what sharding was to save."""
    (tmp_path / "fsdp.json").write_text(json.dumps({"fsdp_version": 2}))
    made = make_job(tmp_path, distributed__strategy="fsdp", distributed__config="fsdp.json")
    assert strategy_arguments(made)["accelerator_config"]["gradient_accumulation_kwargs"] == {"sync_each_batch": True}


@pytest.mark.parametrize(("kernels", "used"), [("none", False), ("liger", True)])
def test_one_loss_kernel_at_most(tmp_path: Path, kernels: str, used: bool) -> None:
    """Liger's own defaults: the fused linear cross-entropy, and no other loss beside it."""
    arguments = training_arguments(make_job(tmp_path, model__kernels=kernels), evaluates=False)
    assert (arguments.use_liger_kernel, arguments.liger_kernel_config) == (used, None)


def test_a_token_beyond_the_embedding_is_refused_before_training(tmp_path: Path) -> None:
    from transformers import LlamaConfig

    LlamaConfig(vocab_size=104).save_pretrained(tmp_path / "model")
    check_vocabulary(make_job(tmp_path), 103)
    with pytest.raises(RuntimeFailure, match=r"token 104, .* 104 rows") as caught:
        check_vocabulary(make_job(tmp_path), 104)
    assert caught.value.exit_code == 1


def test_flash_attention_that_is_not_installed_is_found_before_the_data_is_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").touch()
    monkeypatch.setenv("AXOC_PREFLIGHT_SLOW", "off")
    job = make_job(tmp_path, model__attention="flash_attention_2")
    with pytest.raises(RuntimeFailure, match="flash_attn") as caught:
        preflight.run(job)
    assert caught.value.exit_code == 11 and "sdpa" in str(caught.value)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    preflight.run(job)


def test_evaluation_begins_with_the_longest_rows() -> None:
    from datasets import Dataset

    rows = Dataset.from_dict({"length": [3, 9, 5], "input_ids": [[1] * 3, [1] * 9, [1] * 5]})
    assert by_length(rows)["length"][:] == [9, 5, 3]


def test_fewer_held_out_rows_than_ranks_are_counted_once() -> None:
    """Ranks without a row run the same pass over one without labels: none hangs, and none counts twice."""

    class Model(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> Any:
            return type("Out", (), {"loss": torch.tensor(2.0)})

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return {k: torch.tensor([r[k] for r in rows]) for k in ("input_ids", "labels")}

    held_out = [{"input_ids": [1, 2, 3], "labels": [-100, 2, 3]}]
    counts = [
        mean_negative_log_likelihood(
            Model(), held_out, collate, batch_size=2, device=torch.device("cpu"), rank=rank, world=4
        )
        for rank in range(4)
    ]
    assert counts == [(2.0, 2), (0.0, 0), (0.0, 0), (0.0, 0)]
