"""Which checkpoint is gone on from: complete, of this job, the newest; and nothing is deleted unasked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from axoc_runtime import train
from axoc_runtime.checkpoint.complete import MARKER, newest_complete, resume_key
from axoc_runtime.errors import RuntimeFailure
from axoc_runtime.prepare import _plugins_fingerprint

from runtime.jobs import make_job


def checkpoint(folder: Path, step: int, job: Any | None) -> Path:
    path = folder / "out" / f"checkpoint-{step}"
    path.mkdir(parents=True)
    if job is not None:
        (path / MARKER).write_text(resume_key(job) + "\n")
    return path


def test_the_newest_complete_one_of_this_job(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    other = make_job(tmp_path, training__seed=7)
    assert newest_complete(job) is None
    checkpoint(tmp_path, 2, job)
    wanted = checkpoint(tmp_path, 10, job)
    checkpoint(tmp_path, 20, other)
    checkpoint(tmp_path, 30, None)
    assert newest_complete(job) == wanted


def test_another_jobs_checkpoint_is_refused(tmp_path: Path) -> None:
    checkpoint(tmp_path, 2, make_job(tmp_path))
    with pytest.raises(RuntimeFailure, match="is of another job") as caught:
        newest_complete(make_job(tmp_path, dataset__path="other.jsonl"))
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"training__max_steps": 100}, True),
        ({"training__learning_rate": 1.0}, True),
        ({"output_dir": "elsewhere"}, True),
        ({"dataset__max_seq_length": 8}, False),
        ({"model__id": "other"}, False),
        ({"training__global_batch_size": 8}, False),
        ({"distributed__strategy": "zero2"}, False),
    ],
)
def test_what_may_change_between_a_run_and_its_resumption(tmp_path: Path, change: dict[str, Any], same: bool) -> None:
    assert (resume_key(make_job(tmp_path)) == resume_key(make_job(tmp_path, **change))) is same


def test_an_unfinished_run_is_not_deleted_unasked(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    kept = checkpoint(tmp_path, 2, job)
    with pytest.raises(RuntimeFailure, match="unfinished run") as caught:
        train.run(job)
    assert kept.is_dir() and "--resume" in str(caught.value.fix) and "--fresh" in str(caught.value.fix)


def test_a_plugin_that_changed_prepares_anew(tmp_path: Path) -> None:
    plugin = tmp_path / "plugins" / "mine" / "mine.py"
    plugin.parent.mkdir(parents=True)
    plugin.write_text("x = 1")
    job = make_job(tmp_path)
    before = _plugins_fingerprint(job)
    plugin.write_text("x = 2")
    assert before and _plugins_fingerprint(job) != before
