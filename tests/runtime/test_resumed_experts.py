"""Experts are one parameter in the model and many in files, which the Trainer loads nothing of: a run that goes on has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from axoc_runtime.checkpoint.trainer import Resumable
from axoc_runtime.models.load import load_trainable
from exports.tiny import run_of

from .jobs import LORA, make_job

pytestmark = pytest.mark.slow
ALONE = {"distributed__strategy": "single", "distributed__world_size": 1, "distributed__data_parallel": 1}


@pytest.mark.parametrize("adapter", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "deepseek_v3"])
def test_all_trained_weights_are_those_of_the_checkpoint(
    tmp_path: Path, family: str, adapter: dict[str, Any] | None
) -> None:
    import transformers

    class Trainer(Resumable, transformers.Trainer):
        def __init__(self, model: Any) -> None:
            self.job = job
            super().__init__(model, transformers.TrainingArguments(str(tmp_path / "out"), report_to=[], use_cpu=True))

    job = make_job(tmp_path, model__id=str(run_of(family, tmp_path) / "final"), adapter=adapter, **ALONE)
    model, fresh = (load_trainable(job, torch.device("cpu")) for _ in range(2))
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert any("experts" in name for name in trained)
    with torch.no_grad():
        for parameter in trained.values():
            parameter += torch.randn_like(parameter)
    Trainer(model).save_model(str(tmp_path / "checkpoint"))
    Trainer(fresh)._load_from_checkpoint(str(tmp_path / "checkpoint"))
    found = dict(fresh.named_parameters())
    assert [name for name, p in model.named_parameters() if not found[name].equal(p)] == []
