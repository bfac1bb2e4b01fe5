"""Uploads against a store that is a folder: what counts there, what is sent again, what a run takes from it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from axoc_runtime.checkpoint.complete import complete, resume_key
from axoc_runtime.checkpoint.manifest import MARKER, Manifest, digests, files_of, write_manifest
from axoc_runtime.errors import RuntimeFailure
from axoc_runtime.job import Job
from axoc_runtime.upload import commands, store
from axoc_runtime.upload.commands import fetch, preflight, upload
from axoc_runtime.upload.send import Sender, snapshot
from axoc_runtime.upload.store import StoreLost, one_line, open_store, patiently

from runtime.jobs import make_job


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return make_job(tmp_path, upload_to=f"file://{tmp_path}/store")


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    return tmp_path / "store"


def checkpoint(job: Job, step: int, text: str = "weights") -> Path:
    """A complete one, as the runtime leaves it."""
    folder = job.output / f"checkpoint-{step}"
    (folder / "shards").mkdir(parents=True)
    (folder / "model.safetensors").write_text(f"{text} {step}")
    (folder / "shards" / "0").write_text(f"{text} {step} shard")
    files = digests(folder, files_of(folder))
    resume = {"strategies": ["ddp"], "world_sizes": [2], "because": "so"}
    manifest = Manifest(
        global_step=step, strategy="ddp", world_size=2, same=resume_key(job), resume=resume, files=files
    )
    write_manifest(folder, manifest)
    return folder


def files(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


class Counting:
    """The order of what is sent; fails from the ``fails_at``-th file on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails_at: int | None = None) -> None:
        self.sent: list[str] = []
        self.fails_at = fails_at
        put = store.Store.put
        monkeypatch.setattr(commands, "PATIENCE_SECONDS", 0.0)

        def counted(this: Any, local: Path, relative: str) -> Any:
            if self.fails_at is not None and len(self.sent) >= self.fails_at:
                raise ConnectionError("https://me:hidden@host is gone")
            self.sent.append(relative)
            return put(this, local, relative)

        monkeypatch.setattr(store.Store, "put", counted)


def test_the_marker_goes_last_and_nothing_goes_twice(job: Job, remote: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = checkpoint(job, 2)
    counting = Counting(monkeypatch)
    upload(job)
    assert counting.sent[-1] == f"checkpoint-2/{MARKER}" and len(counting.sent) == 3
    assert files(remote / "checkpoint-2") == files(here)
    upload(job)
    assert len(counting.sent) == 3
    (remote / "checkpoint-2" / "model.safetensors").write_text("changed by somebody")
    Sender(job, 0.0).send_checkpoint(here)
    assert counting.sent[3:] == ["checkpoint-2/model.safetensors"]
    assert not (job.output / ".uploading").exists()


def test_a_store_that_is_lost_half_way(job: Job, remote: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = checkpoint(job, 2)
    counting = Counting(monkeypatch, fails_at=1)
    with pytest.raises(RuntimeFailure, match="not there yet: checkpoint-2") as caught:
        upload(job)
    assert caught.value.exit_code == 17 and "--upload" in str(caught.value.fix)
    assert "hidden" not in str(caught.value)
    assert not (remote / "checkpoint-2" / MARKER).exists() and complete(job.output) == [here]
    counting.fails_at = None
    upload(job)
    assert len(counting.sent) == len(set(counting.sent)) == 3
    assert files(remote / "checkpoint-2") == files(here)


def test_a_marker_of_another_run_never_stands_beside_half_of_this_one(
    job: Job, remote: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = checkpoint(job, 2, "old")
    upload(job)
    shutil.rmtree(old)
    checkpoint(job, 2, "new")
    counting = Counting(monkeypatch, fails_at=1)
    with pytest.raises(RuntimeFailure):
        upload(job)
    assert not (remote / "checkpoint-2" / MARKER).exists()
    counting.fails_at = None
    upload(job)
    assert files(remote / "checkpoint-2")["model.safetensors"] == "new 2"


def test_rotation_does_not_take_a_checkpoint_away_from_its_upload(job: Job, tmp_path: Path) -> None:
    folder = checkpoint(job, 2)
    whole = files(folder)
    with snapshot(folder, tmp_path / "held") as held:
        shutil.rmtree(folder)
        assert files(held) == whole
    assert not (tmp_path / "held").exists()
    with pytest.raises(FileNotFoundError), snapshot(folder, tmp_path / "held"):
        pass


def test_what_rotation_deleted_goes_there_too_once_a_newer_one_is_there(job: Job, remote: Path) -> None:
    first = checkpoint(job, 2)
    upload(job)
    shutil.rmtree(first)
    checkpoint(job, 4)
    sender = Sender(job, 0.0)
    sender.prune()
    assert (remote / "checkpoint-2" / MARKER).is_file(), "the newer one is not there yet"
    upload(job)
    assert [p.name for p in remote.glob("checkpoint-*")] == ["checkpoint-4"]


def test_a_new_machine_takes_the_newest_whole_checkpoint(
    job: Job, remote: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    older, newer = checkpoint(job, 2), checkpoint(job, 4)
    wanted = files(older)
    (job.output / "before.json").write_text("{}")
    upload(job)
    shutil.rmtree(job.output)
    (remote / newer.name / "shards" / "0").write_text("damaged")
    fetch(job, resume=True, fresh=False)
    told = capsys.readouterr().out
    assert "checkpoint-4 is damaged and is passed over: shards/0 has 7 bytes" in told
    assert [p.name for p in complete(job.output)] == ["checkpoint-2"] and files(older) == wanted
    assert (job.output / "before.json").is_file()
    assert not (job.output / ".fetching").exists()
    assert Sender(job, 0.0).unsent() == [], "what came from there is not sent there"


def test_a_run_from_the_start_does_not_pass_over_what_is_there(job: Job, remote: Path) -> None:
    checkpoint(job, 2)
    upload(job)
    shutil.rmtree(job.output)
    with pytest.raises(RuntimeFailure, match=r"unfinished run has left .*checkpoint-2") as caught:
        fetch(job, resume=False, fresh=False)
    assert caught.value.exit_code == 1 and (remote / "checkpoint-2" / MARKER).is_file()
    fetch(job, resume=False, fresh=True)
    assert not (remote / "checkpoint-2").exists()


def test_a_local_checkpoint_that_is_newer_stays(job: Job) -> None:
    checkpoint(job, 2)
    upload(job)
    newer = checkpoint(job, 4)
    fetch(job, resume=True, fresh=False)
    assert complete(job.output)[-1] == newer


def test_preflight_writes_and_leaves_nothing(job: Job, remote: Path) -> None:
    preflight(job)
    assert list(remote.iterdir()) == []


def test_a_store_that_cannot_be_written_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "PROBE_SECONDS", 0.0)
    (tmp_path / "file").touch()
    with pytest.raises(RuntimeFailure, match="cannot be written") as caught:
        preflight(make_job(tmp_path, upload_to=f"file://{tmp_path}/file/store"))
    assert caught.value.exit_code == 12


@pytest.mark.parametrize(("url", "package"), [("gs://bucket", "gcsfs"), ("az://bucket", "adlfs")])
def test_a_store_without_its_package(url: str, package: str) -> None:
    pytest.importorskip("fsspec")
    with pytest.raises(RuntimeFailure, match="nothing is installed that writes to") as caught:
        open_store(url)
    assert caught.value.exit_code == 11 and f"pip install {package}" in str(caught.value.fix)


def test_patience_doubles_its_waits_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    now, waits, told = [0.0], [], []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(store.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(store.time, "sleep", sleep)
    with pytest.raises(StoreLost, match="ConnectionError: gone"):
        patiently(lambda: (_ for _ in ()).throw(ConnectionError("gone")), 200.0, told.append)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60] and len(told) == 8


@pytest.mark.parametrize("secret", ["https://me:abc123@host/x", "?sig=abc123&x=1", "SecretKey=abc123 refused"])
def test_no_secret_is_told(secret: str) -> None:
    assert "abc123" not in one_line(OSError(f"cannot reach {secret}"))
