"""Each way a run fails: it ends in a defined way, one line says what happened and what to do, and nothing is left behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e.conftest import Launch, make_work, parameters
from e2e.test_told import install_callback

pytestmark = pytest.mark.slow

FAULTS = """
import os, signal, time
from pathlib import Path
from transformers import TrainerCallback

class Mine(TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        if (os.environ["RANK"], state.global_step) != (os.environ.get("FAULTY_RANK", "1"), 2):
            return
        fault = os.environ.get("FAULT", "none")
        if fault in ("SIGKILL", "SIGSTOP"):
            os.kill(os.getpid(), getattr(signal, fault))
        if fault == "memory":
            import torch
            torch.empty(1 << 48)
        if fault == "sleep":
            time.sleep(10_000)
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """One folder for all of these: its rows are prepared once."""
    folder = tmp_path_factory.mktemp("failing")
    make_work(folder, tiny)
    return folder


@pytest.fixture(autouse=True)
def fresh(work: Path, launched: Launch) -> None:
    """Nothing of the last run but its prepared rows, which the first test makes."""
    kept = work / "prepared"
    shutil.rmtree(work / "out", ignore_errors=True)
    if not kept.is_dir():
        assert launched("prepare").returncode == 0
        (work / "out" / ".prepared").rename(kept)
        shutil.rmtree(work / "out")


@pytest.fixture
def faults(work: Path, environment: dict[str, str]) -> dict[str, str]:
    """The environment of the runs: ``FAULT`` befalls rank ``FAULTY_RANK`` at the beginning of its third step."""
    install_callback(work, FAULTS)
    environment["PYTHONPATH"] += f":{work}"
    return environment


def job_of(tiny: Path, **more: Any) -> dict[str, Any]:
    return {"expect__trainable_parameters": parameters(tiny), "training__save_steps": 1, **more}


def fails(work: Path, launched: Launch, code: int, *, room: bool = True, **job: Any) -> str:
    """What a run tells that ends with this code. Its processes are gone, and its trace is no business of the user's.
    Without ``room`` on the disk the code may stand nowhere, but not in part."""
    shutil.copytree(work / "prepared", work / "out" / ".prepared")
    done = launched("train", **job)
    assert done.returncode == code, done.stderr[-3000:]
    left = work / "out" / ".exit-code"
    assert (left.read_text() if left.exists() else None) in ([f"{code}\n"] if room else [f"{code}\n", None])
    assert "Traceback" not in done.stderr
    assert processes(work) == []
    return done.stderr


def processes(work: Path) -> list[str]:
    """Command lines that name this test's job, zombies among them."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if os.fsencode(work / "job.json") in line:
            found.append(line.replace(b"\0", b" ").decode())
    return found


def complete(work: Path) -> list[str]:
    return sorted(p.parent.name for p in (work / "out").glob("checkpoint-*/.axoc-complete"))


def test_a_loss_that_is_no_number(work: Path, tiny: Path, launched: Launch) -> None:
    """A learning rate that makes the weights overflow at the first step. All ranks stop alike, and one tells it."""
    told = fails(work, launched, 14, **job_of(tiny, training__learning_rate=1e38, training__save_steps=100))
    (line,) = [line for line in told.splitlines() if line.startswith("axoc:")]
    assert "rank 0: the loss is no number at step 2 (learning rate 1e+38; the last good loss was " in line
    assert "rows of rank 0: " in line and "rows of rank 1: " in line
    assert "a smaller training.learning_rate" in told
    found = json.loads((work / "out" / "logs" / "step-2-rows.json").read_text())
    assert [f["rank"] for f in found] == [0, 1] and {loss for f in found for loss in f["losses"]} == {"nan"}
    rows = [row for f in found for row in f["rows"]]
    assert len(rows) == 4 and all(isinstance(row["row"], int) and "+" in row["text"] for row in rows)
    assert not list((work / "out").glob("checkpoint-*"))


def test_out_of_memory_on_one_rank(work: Path, tiny: Path, launched: Launch, faults: dict[str, str]) -> None:
    faults["FAULT"] = "memory"
    ledger = [{"item": "weights", "bytes": 3 << 30}, {"item": "activations", "bytes": 2 << 30}]
    estimates = [{"memory": {"device_used_bytes": gib << 30, "ledger": ledger}} for gib in (6, 0)]
    plans = [{"micro_batch_size": 4, "strategy": "ddp"}, {"micro_batch_size": 1, "strategy": "ddp"}]
    both = [{"plan": p, "estimate": e} for p, e in zip(plans, estimates, strict=True)]
    (work / "plan.json").write_text(json.dumps(both[0] | {"candidates": both}))
    told = fails(work, launched, 15, **job_of(tiny, prediction__device_used_bytes=6 << 30))
    assert "rank 1: out of host memory while training at step 2: 1048576.00 GiB more were asked for" in told
    assert "6.00 planned at the peak" in told
    assert " ".join(told.split()).count("activations 2.00 GiB planned") == 1
    assert "used on the device" in told and "measured now" in told
    assert "set distributed.memory_budget_per_gpu_gb: " in told and "that leaves micro_batch_size: 1" in told
    assert "rank 0" not in told, "it has lost its peer, which is no news"
    assert complete(work) == ["checkpoint-1", "checkpoint-2"]


def test_a_rank_that_is_killed(work: Path, tiny: Path, launched: Launch, faults: dict[str, str]) -> None:
    """Two others lose it, and say nothing."""
    ranks = 3
    faults |= {"FAULT": "SIGKILL", "FAULTY_RANK": str(ranks - 1)}
    several = {"world_size": ranks, "processes_per_node": ranks, "data_parallel": ranks}
    job = job_of(tiny, **{f"distributed__{k}": v for k, v in several.items()}, training__global_batch_size=2 * ranks)
    told = fails(work, launched, 14, **job)
    assert f"axoc: rank {ranks - 1} was killed by SIGKILL" in told and "--resume goes on" in told
    assert len([line for line in told.splitlines() if line.startswith("axoc:")]) == 1, told
    assert complete(work) == ["checkpoint-1", "checkpoint-2"]


def test_a_rank_that_is_stopped(work: Path, tiny: Path, launched: Launch, faults: dict[str, str]) -> None:
    faults |= {"FAULT": "SIGSTOP", "AXOC_HANG_SECONDS": "60"}
    told = fails(work, launched, 14, **job_of(tiny))
    assert "axoc: rank 1 has been stopped (SIGSTOP, or a debugger) for " in told
    assert "after step 2, while training" in told and "AXOC_HANG_SECONDS" in told


def test_ranks_that_wait_for_one_that_does_not_get_on(
    work: Path, tiny: Path, launched: Launch, faults: dict[str, str]
) -> None:
    faults |= {"FAULT": "sleep", "AXOC_HANG_SECONDS": "5"}
    told = fails(work, launched, 14, **job_of(tiny))
    assert "axoc: no step was made for " in told and "rank 0 after step 2, rank 1 after step 2" in told
    stacks = (work / "out" / "logs" / "stacks.txt").read_text()
    assert "house_callbacks.py" in stacks.partition("rank 1:")[2], "where it sleeps"
    assert "house_callbacks.py" not in stacks.partition("rank 1:")[0]


@pytest.fixture
def small_disk(work: Path) -> Iterator[Path]:
    """A real file system with room for one checkpoint, not for two."""
    out = work / "out"
    out.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(out)], capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")
    yield out
    for _ in range(50):
        if subprocess.run(["umount", str(out)], capture_output=True).returncode == 0:
            return
        time.sleep(0.1)


def test_a_disk_that_is_full(work: Path, tiny: Path, launched: Launch, small_disk: Path) -> None:
    told = fails(work, launched, 14, room=False, **job_of(tiny))
    assert "no space is left while saving at step " in told and "a checkpoint takes 0.00 GiB, as checkpoint-" in told
    kept = complete(work)
    assert kept and f"--resume then goes on from {kept[-1]}" in told
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    resumed = launched("train", "--resume", **job_of(tiny))
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert kept[-1] in resumed.stdout
    assert json.loads((small_disk / "metrics.json").read_text())["steps"] == 4
