"""Packed and unpacked rows teach the same: losses and gradients against each document by itself, in plain attention."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from axoc_runtime import prepare, train
from axoc_runtime.job import Job
from e2e.conftest import make_tiny, make_work, parameters
from e2e.test_told import ALONE

from runtime.jobs import make_job
from runtime.packs import apart, assert_same, gradients

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    return make_work(tmp_path_factory.mktemp("packed"), make_tiny(tmp_path_factory.mktemp("model"), tokenizer))


def job_of(work: Path, *, packing: bool, **changes: Any) -> Job:
    base = {f"distributed__{k}": v for k, v in ALONE.items()} | {
        "dataset__packing": packing, "model__attention": "varlen" if packing else "eager", "dataset__max_seq_length": 160,
        "training__micro_batch_size": 2, "expect__trainable_parameters": parameters(work / "model"),
    }  # fmt: skip
    job = make_job(work, **(base | changes))
    prepare.run(job)
    return job


@pytest.fixture(scope="module")
def built(work: Path) -> Any:
    return train.build(job_of(work, packing=True), resumed=False)[0]


def documents(batches: list[dict[str, Any]]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Ids and labels of each, found by the batches' own boundaries; padding learns nothing and is left out."""
    found = []
    for batch in batches:
        ends = batch["cu_seq_lens_q"].tolist()
        for start, end in pairwise(ends):
            labels = batch["labels"][0, start:end]
            if (labels != -100).any():
                found.append((batch["input_ids"][0, start:end], labels))
    return found


def test_a_step_of_two_micro_batches_is_its_documents_one_by_one(built: Any) -> None:
    """Through the Trainer's own dataloader, count of labels and loss."""
    built.model.train()
    batches, learned = built.get_batch_samples(iter(built.get_train_dataloader()), 2, torch.device("cpu"))
    alone = documents(batches)
    assert len(batches) == 2 and len(alone) > 8
    assert all(b["input_ids"].shape == (1, 320) for b in batches), "neither split nor padded by accelerate"
    assert int(learned) == sum(int((labels != -100).sum()) for _, labels in alone)
    reference = apart(built.model, alone)
    built.model.zero_grad()
    built.current_gradient_accumulation_steps = 2
    loss = sum(float(built.training_step(built.model, dict(b), learned)) for b in batches)
    assert_same(reference, (loss, gradients(built.model)), relative=2e-5)


def test_no_step_walks_the_model_to_count_its_operations(built: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planner leaves that time out (compiler/axoc/cost/walks.py)."""
    monkeypatch.setattr(type(built.model), "num_parameters", lambda *_, **__: pytest.fail("it was counted"))
    assert built.floating_point_ops({"input_ids": torch.ones(1, 8)}) == 0.0


def test_the_held_out_loss_is_that_of_rows(built: Any, work: Path) -> None:
    plain = train.build(job_of(work, packing=False), resumed=False)[0]
    packed, rows = built.held_out_loss(built.eval_dataset), plain.held_out_loss(plain.eval_dataset)
    assert len(built.eval_dataset) < len(plain.eval_dataset)
    assert packed == pytest.approx(rows, rel=1e-6)


def test_what_is_prepared_is_what_a_batch_holds(built: Any, work: Path) -> None:
    rows, _ = prepare.load_prepared(job_of(work, packing=True))
    every = {tuple(r["input_ids"].tolist()) for r in rows}
    seen = [ids for b in built.get_train_dataloader() for ids, _ in documents([b])]
    assert {tuple(ids.tolist()) for ids in seen} == every
    assert json.loads((work / "job.json").read_text())["training"]["micro_batch_size"] == 2
