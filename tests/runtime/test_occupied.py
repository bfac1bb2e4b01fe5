"""An output folder is one run's at a time: another is refused by the name of the first, and a killed one leaves no lock."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from axoc_runtime import preflight
from axoc_runtime.errors import RuntimeFailure
from axoc_runtime.failure.occupied import NAME, occupant, occupied
from axoc_runtime.job import Job, read_job

from runtime.jobs import make_job, write_job

HOLDS = """
import sys
from pathlib import Path
from axoc_runtime.failure.occupied import occupied
from axoc_runtime.job import read_job
with occupied(read_job(Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return Path(write_job(tmp_path))


@pytest.fixture
def holder(job: Path) -> Iterator[subprocess.Popen[str]]:
    """Another run."""
    command = [sys.executable, "-c", HOLDS, str(job)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def told(job: Job, process: subprocess.Popen[str]) -> str:
    return rf"another run writes to {re.escape(str(job.output))}: process {process.pid} on \S+, since 20"


def test_the_run_that_is_there_is_named(job: Path, holder: subprocess.Popen[str]) -> None:
    second = read_job(job)
    assert re.match(told(second, holder), occupant(second) or "")
    with pytest.raises(RuntimeFailure, match=told(second, holder)) as caught, occupied(second):
        pytest.fail("two runs in one folder")
    assert caught.value.exit_code == 12


def test_a_preflight_refuses_the_folder_of_another_run(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    job = make_job(tmp_path)
    with (
        occupied(job),
        pytest.raises(RuntimeFailure, match=r"another run writes to .*set another output_dir") as caught,
    ):
        preflight.run(job)
    assert caught.value.exit_code == 12
    with pytest.raises(RuntimeFailure) as caught:  # of a model that is no model
        preflight.run(job)
    assert "another run" not in str(caught.value)


def test_a_run_that_was_killed_leaves_nothing_to_remove(job: Path, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    mine = read_job(job)
    assert occupant(mine) is None
    with occupied(mine):
        assert f"process {os.getpid()} " in (occupant(mine) or "")
    assert occupant(mine) is None
    assert (mine.output / NAME).read_text() == "{}\n"


def test_ranks_of_a_second_run_do_not_start(job: Path, holder: subprocess.Popen[str]) -> None:
    record = read_job(job).output / ".exit-code"
    record.write_text("15\n")  # of the run that is there
    launch = [
        sys.executable,
        "-m",
        "axoc_runtime.torchrun",
        "--standalone",
        "--nproc_per_node",
        "2",
        "-m",
        "axoc_runtime",
    ]
    done = subprocess.run([*launch, "train", str(job)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 12
    first, fix = done.stderr.splitlines()
    assert re.match("axoc: " + told(read_job(job), holder), first)
    assert fix == "  fix: wait for it or end it, or set another output_dir and plan again"
    assert record.read_text() == "15\n"


def test_other_hosts_of_a_run_share_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job(tmp_path, distributed__nodes=2, distributed__processes_per_node=1)
    monkeypatch.setenv("NODE_RANK", "0")
    with occupied(job):
        monkeypatch.setenv("NODE_RANK", "1")
        with occupied(job):
            assert f"process {os.getpid()} " in (occupant(job) or "")


def test_a_folder_that_cannot_be_written_is_left_to_those_who_say_so(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    job.output.touch()
    with occupied(job), occupied(None):
        assert occupant(job) is None
