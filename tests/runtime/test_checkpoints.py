"""Which checkpoint is gone on from: whole, of this job, the newest; which are kept; and nothing is deleted unasked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from axoc_runtime import train
from axoc_runtime.checkpoint import keep
from axoc_runtime.checkpoint.complete import MARKER, candidates, complete, resume_key
from axoc_runtime.checkpoint.manifest import Manifest, damage, digests, files_of, read_manifest, write_manifest
from axoc_runtime.checkpoint.resume import newest_whole
from axoc_runtime.errors import RuntimeFailure
from axoc_runtime.job import Job
from axoc_runtime.preparation.digest import plugins

from runtime.jobs import LORA, make_job


def checkpoint(folder: Path, step: int, job: Job, **changes: Any) -> Path:
    path = folder / f"checkpoint-{step}"
    (path / "shards").mkdir(parents=True)
    (path / "weights").write_text(f"weights of step {step}")
    (path / "shards" / "__0_0.distcp").write_text("states")
    values = {"strategy": job.distributed.strategy, "world_size": job.distributed.world_size, "same": resume_key(job)}
    write_manifest(
        path,
        Manifest(
            global_step=step, resume=job.to_dict()["resume"], files=digests(path, files_of(path)), **(values | changes)
        ),
    )
    return path


def test_the_newest_complete_one_of_this_job(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    assert candidates(job) == []
    older, newer = checkpoint(job.output, 2, job), checkpoint(job.output, 10, job)
    checkpoint(job.output, 20, make_job(tmp_path, training__seed=7))
    (job.output / "checkpoint-30").mkdir()
    checkpoint(job.output / keep.SAVING, 40, job)
    assert candidates(job) == [newer, older]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"training__max_steps": 100}, None),
        ({"training__learning_rate": 1.0}, None),
        ({"training__micro_batch_size": 2, "training__gradient_accumulation_steps": 1}, None),
        ({"model__attention": "eager", "model__kernels": "liger"}, None),
        ({"distributed__world_size": 4}, None),
        ({"distributed__world_size": 1, "distributed__strategy": "single"}, None),
        ({"distributed__world_size": 3}, "goes on with 1, 2, 4 processes, the plan has 3: every rank holds all of it"),
        (
            {"distributed__strategy": "zero2"},
            "written by ddp, which only ddp or single reads: set distributed.type: ddp, not zero2",
        ),
        ({"dataset__path": "other.jsonl"}, "dataset was"),
        ({"model__id": "other"}, "model.id was model, is other"),
        ({"training__global_batch_size": 8}, "training.global_batch_size was 4, is 8"),
        ({"adapter": LORA}, "adapter was None"),
        ({"distributed__mixed_precision": "bf16"}, "distributed.mixed_precision was no, is bf16"),
    ],
)
def test_what_may_change_between_a_run_and_its_resumption(
    tmp_path: Path, change: dict[str, Any], reason: str | None
) -> None:
    path = checkpoint(tmp_path / "out", 2, make_job(tmp_path))
    changed = make_job(tmp_path, **change)
    if reason is None:
        assert candidates(changed) == [path]
        return
    with pytest.raises(RuntimeFailure) as caught:
        candidates(changed)
    assert caught.value.exit_code == 1 and reason in str(caught.value) and "--fresh" in str(caught.value.fix)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda p: (p / "weights").unlink(), "weights is missing"),
        (lambda p: (p / "weights").write_text("short"), "weights has 5 bytes, 17 were written"),
        (lambda p: (p / "shards/__0_0.distcp").write_text("stateS"), "shards/__0_0.distcp does not have the SHA-256"),
    ],
)
def test_a_damaged_one_is_named_and_set_aside_for_the_one_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], harm: Any, said: str
) -> None:
    job = make_job(tmp_path)
    older, newer = checkpoint(job.output, 2, job), checkpoint(job.output, 4, job)
    harm(newer)
    found, manifest = newest_whole(candidates(job))
    assert (found, manifest.global_step) == (older, 2)
    shown = capsys.readouterr().out
    assert said in shown and "damaged-checkpoint-4" in shown
    assert complete(job.output) == [older] and (job.output / "damaged-checkpoint-4").is_dir()


def test_with_none_left_the_run_stops_and_touches_nothing(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    only = checkpoint(job.output, 2, job)
    (only / "weights").write_text("?")
    with pytest.raises(RuntimeFailure, match=r"no checkpoint is left to go on from: .*weights has 1 bytes"):
        newest_whole(candidates(job))
    assert only.is_dir()


def test_a_cut_or_foreign_marker_makes_no_checkpoint(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, 2, make_job(tmp_path))
    text = (path / MARKER).read_text()
    for broken in ("", text[: len(text) // 2], "0" * 64, text.replace('"schema_version": 1', '"schema_version": 2')):
        (path / MARKER).write_text(broken)
        assert read_manifest(path) is None
    outside = json.loads(text)
    outside["files"]["../../secret"] = {"bytes": 1, "sha256": ""}
    (path / MARKER).write_text(json.dumps(outside))
    assert read_manifest(path) is None


def test_every_file_but_the_marker_is_in_the_manifest(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, 2, make_job(tmp_path))
    manifest = read_manifest(path)
    assert manifest is not None
    assert sorted(manifest.files) == ["shards/__0_0.distcp", "weights"]
    assert damage(path, manifest, manifest.files) == []


@pytest.mark.parametrize(("best", "left"), [(None, [6, 8]), (2, [2, 8]), (8, [6, 8])])
def test_rotation_keeps_the_newest_and_the_best_and_two_in_all(
    tmp_path: Path, best: int | None, left: list[int]
) -> None:
    job = make_job(tmp_path)
    for step in (2, 4, 6, 8):
        checkpoint(job.output, step, job)
    keep.rotate(job.output, best)
    assert [int(p.name.rpartition("-")[2]) for p in complete(job.output)] == left
    assert not (job.output / keep.DELETING).exists()


def test_one_of_the_same_step_gives_way(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    checkpoint(job.output, 2, job)
    staged = checkpoint(job.output / keep.SAVING, 2, job)
    (staged / "weights").write_text("new")
    assert (keep.publish(staged, job.output) / "weights").read_text() == "new"
    assert not staged.exists()


def test_an_unfinished_run_is_not_deleted_unasked(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    kept = checkpoint(job.output, 2, job)
    with pytest.raises(RuntimeFailure, match="unfinished run") as caught:
        train.run(job)
    assert kept.is_dir() and "--resume" in str(caught.value.fix) and "--fresh" in str(caught.value.fix)


def test_a_plugin_that_changed_prepares_anew(tmp_path: Path) -> None:
    plugin = tmp_path / "plugins" / "mine" / "mine.py"
    plugin.parent.mkdir(parents=True)
    plugin.write_text("x = 1")
    job = make_job(tmp_path)
    before = plugins(job)
    plugin.write_text("x = 2")
    assert before and plugins(job) != before
