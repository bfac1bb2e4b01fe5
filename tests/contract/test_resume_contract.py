"""What one plan has saved, the same spec's plan for other hardware may go on from: planner and runtime agree on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from asking import plan
from axoc.emit.job import job_dict
from axoc.ir.canonical import dumps
from axoc.ir.plan import Plan
from axoc_runtime.checkpoint.complete import refusal, resume_key
from axoc_runtime.checkpoint.manifest import Manifest
from axoc_runtime.job import Job, read_job


def job(folder: Path, inventory: str, **changes: Any) -> Job:
    found = plan("meta-llama/Llama-3.2-1B", inventory, **changes)
    assert isinstance(found, Plan)
    path = folder / "job.json"
    path.write_text(dumps(job_dict(found)))
    assert json.loads(path.read_text())["resume"]["world_sizes"]
    return read_job(path)


def saved_by(job: Job) -> Manifest:
    return Manifest(
        global_step=1, strategy=job.distributed.strategy, world_size=job.distributed.world_size, same=resume_key(job),
        resume=job.to_dict()["resume"], files={},
    )  # fmt: skip


@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "zero2", "zero3"])
def test_replanned_for_other_hardware(tmp_path: Path, strategy: str) -> None:
    """Other kinds and numbers of accelerators, which the planner splits the same global batch over."""
    changes = {
        "distributed__type": strategy,
        "training__optimizer": "adamw_torch_fused",
        "distributed__offload": "none",
    }
    jobs = [job(tmp_path, i, **changes) for i in ("h100-sxm-80gb:8", "h100-sxm-80gb:4", "a100-sxm-80gb:8x2")]
    assert {j.distributed.world_size for j in jobs} == {4, 8, 16}
    assert len({j.training.global_batch_size for j in jobs}) == 1
    assert [refusal(there, saved_by(here)) for here in jobs for there in jobs] == [None] * 9


def test_another_batch_or_strategy_is_refused_with_what_to_set(tmp_path: Path) -> None:
    saved = saved_by(job(tmp_path, "h100-sxm-80gb:8", distributed__type="fsdp", training__global_batch_size=64))
    other = job(tmp_path, "h100-sxm-80gb:8", distributed__type="fsdp", training__global_batch_size=128)
    assert refusal(other, saved) == "training.global_batch_size was 64, is 128"
    other = job(tmp_path, "h100-sxm-80gb:8", distributed__type="zero2", training__global_batch_size=64)
    assert "set distributed.type: fsdp, not zero2" in str(refusal(other, saved))
