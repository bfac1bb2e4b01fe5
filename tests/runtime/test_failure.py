"""What is told of a failure, and who is judged to be at fault. Nothing fails here for real: tests/e2e/test_failure.py does that."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from axoc_runtime.failure import memory, watch
from axoc_runtime.failure.activity import Activity
from axoc_runtime.failure.disk import cause, path_of
from axoc_runtime.failure.explain import explain, lost_peer, out_of_memory
from axoc_runtime.failure.heartbeat import SOCKET_VARIABLE
from axoc_runtime.failure.memory import Moment, asked_bytes, budget_bytes, replan
from axoc_runtime.failure.watch import Seen, Watch, judge

from runtime.jobs import make_job

GIB = 1 << 30


def seen(heard: float, moved: float, phase: str = "training", step: int = 3, longest: float = 1.0) -> Seen:
    return Seen(
        pid=os.getpid(), phase=phase, step=step, moves=9, longest_step_seconds=longest, heard=heard, moved=moved
    )


@pytest.mark.parametrize(
    ("ranks", "told"),
    [
        ({0: seen(1000, 1000), 1: seen(999, 999)}, None),
        ({0: seen(1000, 390), 1: seen(1000, 395)}, "no step was made for 605 s"),
        ({0: seen(1000, 390), 1: seen(1000, 500)}, None),
        ({0: seen(1000, 390, longest=40.0)}, None),
        ({0: seen(1000, 1, longest=40.0)}, "no step was made for 999 s"),
        ({0: seen(1000, 1, longest=0.0)}, None),
        ({0: seen(1000, 1, phase="saving"), 1: seen(1000, 1)}, None),
        ({0: seen(1000, 1000), 1: seen(870, 870)}, "rank 1 has hung for 130 s, after step 3, while training"),
        ({0: seen(1000, 1000), 1: seen(870, 870, phase="saving")}, None),
        ({}, None),
    ],
)
def test_who_hangs(ranks: dict[int, Seen], told: str | None) -> None:
    found = judge(ranks, 1000.0, 600.0)
    assert (found is None) if told is None else (found is not None and found.message.startswith(told))


def test_a_stopped_process_is_told_from_a_silent_one(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = {0: seen(1000, 1000, phase="saving"), 1: seen(935, 935, phase="saving")}
    assert judge(ranks, 1000.0, 600.0) is None
    monkeypatch.setattr(watch, "state_of", lambda pid: "T")
    found = judge(ranks, 1000.0, 600.0)
    assert found is not None and found.message.startswith("rank 1 has been stopped")


RANK = """
import sys, time
from axoc_runtime.failure import heartbeat
from axoc_runtime.failure.activity import NOW, TRAINING
heartbeat.begin(int(sys.argv[1]))
NOW.enter(TRAINING, 7)
time.sleep(60)
"""


def test_a_rank_is_heard_its_stacks_are_read_and_it_is_killed() -> None:
    with Watch(limit_seconds=0) as watching:
        assert SOCKET_VARIABLE in os.environ
        rank = subprocess.Popen([sys.executable, "-c", RANK, "3"])
        deadline = time.monotonic() + 30
        while getattr(watching._ranks.get(3), "step", 0) != 7:
            assert time.monotonic() < deadline, "no beat was heard"
            time.sleep(0.05)
        watching._end(watch.Verdict("it hangs", (rank.pid,), (3,)))
        assert rank.wait(timeout=10) == -signal.SIGKILL
    assert watching.message == "it hangs"
    assert 'File "<string>", line 7' in watching.stacks, "where it slept"
    assert SOCKET_VARIABLE not in os.environ


def test_a_pid_that_is_no_child_is_left_alone() -> None:
    assert watch.state_of(1) is None and watch.state_of(os.getppid()) is None


def test_moves_are_told_at_once() -> None:
    told: list[int] = []
    now = Activity()
    now.listener = lambda: told.append(now.step)
    now.enter("training", 1)
    now.enter("saving")
    assert told == [1, 1] and now.moves == 2 and str(now) == "while saving at step 1"


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError(), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried"),
            True,
        ),
        (RuntimeError("CUDA error: out of memory"), True),
        (ValueError("out of memory"), False),
    ],
)
def test_out_of_memory_is_recognized_within_what_wraps_it(error: Exception, is_memory: bool) -> None:
    try:
        try:
            raise error
        except Exception as inner:
            raise KeyError("wrapped") from inner
    except KeyError as outer:
        assert out_of_memory(outer) is is_memory


def test_lost_peers_are_recognized() -> None:
    gloo = "[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1234"
    assert lost_peer(RuntimeError(gloo)) and not lost_peer(RuntimeError("shapes do not match"))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.10 GiB", 2.5 * GIB),
        ("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes. Error code 12", 4096),
        ("no figure", 0),
    ],
)
def test_what_was_asked_for(text: str, size: float) -> None:
    assert asked_bytes(RuntimeError(text)) == size


def cuda_job(folder: Path) -> Any:
    return make_job(
        folder, distributed__device="cuda", prediction__device_used_bytes=60 * GIB,
        prediction__peak_reserved_bytes=58 * GIB,
    )  # fmt: skip


def moment(used: float, asked: float, reserved: float = 77.0) -> Moment:
    values = {"asked": asked, "allocated": reserved, "reserved": reserved, "used": used, "total": 80}
    return Moment(**{k: int(v * GIB) for k, v in values.items()})


def test_the_budget_scales_by_what_the_prediction_missed(tmp_path: Path) -> None:
    """60 GiB were planned, 79 + 1 needed: a plan of 60 must come out under three quarters of the device."""
    job = cuda_job(tmp_path)
    assert budget_bytes(job, moment(79, 1)) == 60 * GIB
    assert budget_bytes(job, moment(79, 41)) == 40 * GIB
    assert "memory_budget_per_gpu_gb: 39.96" in replan(job, moment(79, 41))


def test_what_others_hold_is_named_and_left_to_them(tmp_path: Path) -> None:
    """30 GiB are reserved here and 2 are the context's: 40 of the 72 are another's."""
    told = replan(cuda_job(tmp_path), moment(72, 8, reserved=30))
    assert "other processes hold 40.0 GiB of this device: end them, or set" in told
    assert "memory_budget_per_gpu_gb: 39.96" in told


def test_the_next_candidate_is_the_plans_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = cuda_job(tmp_path)
    ran = {"strategy": "ddp", "micro_batch_size": 4, "gradient_checkpointing": "none"}
    others = [(ran, 60), (ran | {"micro_batch_size": 2}, 39.9), (ran | {"gradient_checkpointing": "full"}, 30)]
    found = [{"plan": p, "estimate": {"memory": {"device_used_bytes": int(g * GIB)}}} for p, g in others]
    (tmp_path / "plan.json").write_text(json.dumps({"plan": ran, "candidates": found}))
    assert replan(job, moment(79, 41)).endswith("that leaves gradient_checkpointing: full at 30.00 GiB")
    (tmp_path / "plan.json").write_text("half a fi")
    assert "candidates" not in replan(job, moment(79, 41)), "a plan that cannot be read fails nothing"


def test_out_of_memory_shows_the_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = [{"item": "weights", "bytes": 3 * GIB}]
    (tmp_path / "plan.json").write_text(json.dumps({"estimate": {"memory": {"ledger": ledger}}}))
    monkeypatch.setattr(memory, "measure", lambda job, error: moment(79, 1))
    told = memory.explain(cuda_job(tmp_path), MemoryError()).render()
    assert told.startswith("out of device memory while starting: 1.00 GiB more were asked for; 79.00 of 80.00 GiB")
    table = [" ".join(line.split()) for line in told.splitlines()[1:]]
    assert table[0] == "weights 3.00 GiB planned"
    assert table[3] == "used on the device 60.00 GiB planned 79.00 GiB measured now"


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/x/checkpoint-2/optimizer.pt"), errno.ENOSPC),
        (OSError(errno.EFBIG, "File too large"), errno.EFBIG),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), errno.ENOSPC),
        (
            RuntimeError("[enforce fail at inline_container.cc:858] . PytorchStreamWriter failed writing file data/0"),
            28,
        ),
        (OSError(errno.EACCES, "Permission denied"), None),
    ],
)
def test_a_full_disk_is_recognized(error: Exception, number: int | None) -> None:
    assert cause(error) == number


def test_the_path_that_is_full(tmp_path: Path) -> None:
    error = OSError(errno.ENOSPC, "No space left on device", "/x/checkpoint-2/optimizer.pt")
    assert path_of(error) == "/x/checkpoint-2/optimizer.pt"
    failure = explain(make_job(tmp_path), "train", error, 14)
    assert failure.exit_code == 14
    assert "no space is left while starting: /x/checkpoint-2/optimizer.pt, with " in str(failure)
    assert "no complete checkpoint is there yet" in str(failure.fix)


def failure(code: int, timestamp: int = 5) -> Any:
    return SimpleNamespace(exitcode=code, timestamp=timestamp)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("failures", "culprit"),
    [
        ({0: failure(14, 1), 1: failure(-9, 1)}, 1),
        ({0: failure(-15, 1), 1: failure(14, 2)}, 0),
        ({2: failure(14, 9), 3: failure(15, 8)}, 3),
    ],
)
def test_the_rank_that_ended_first(failures: dict[int, Any], culprit: int) -> None:
    from axoc_runtime.torchrun import root

    assert root(failures)[0] == culprit


@pytest.mark.slow
def test_a_rank_that_the_kernel_killed_for_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from axoc_runtime.torchrun import failed

    job = make_job(tmp_path)
    assert failed(job, Watch(), {1: failure(-9)}, host_memory_ran_out=True)[0] == 15
    assert "rank 1 was killed by the kernel: host memory ran out" in capsys.readouterr().err
    assert (job.output / ".exit-code").read_text() == "15\n"
    assert failed(job, Watch(), {0: failure(14)}, host_memory_ran_out=False)[0] == 15, "the first code is the run's"
    assert capsys.readouterr().err == "", "and the rank has said why"
