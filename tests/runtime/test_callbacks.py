"""What the run tells: metrics.jsonl, the bar's text, own callbacks. No model is trained here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from axoc_runtime.callbacks import activity, plugins, progress
from axoc_runtime.callbacks.activity import Follow
from axoc_runtime.callbacks.metric_lines import MetricLines
from axoc_runtime.callbacks.progress import Progress
from axoc_runtime.callbacks.timing import Throughput, Timing
from axoc_runtime.errors import RuntimeFailure
from axoc_runtime.failure.activity import Activity

from runtime.jobs import make_job


def at(step: int, of: int = 10) -> Any:
    return SimpleNamespace(global_step=step, max_steps=of)


class Run:
    """The callbacks of a run whose steps take a second and hold 100 real tokens on each of the two ranks."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WORLD_SIZE", "2")
        self.timing = Timing()
        self.throughput = Throughput(self.timing)
        self.throughput.trainer = self.trainer = SimpleNamespace(tokens_seen=0)
        self.lines = MetricLines(make_job(folder), self.throughput)
        self.file = folder / "out" / "metrics.jsonl"

    def begin(self, step: int = 0) -> None:
        self.lines.on_train_begin(None, at(step), None)

    def make(self, steps: int) -> None:
        self.timing.steps.extend([1.0] * steps)
        self.trainer.tokens_seen += 100 * steps

    def log(self, step: int, **logs: float) -> None:
        self.lines.on_log(None, at(step), None, logs=logs)

    def read(self) -> list[dict[str, Any]]:
        return [json.loads(line, parse_constant=pytest.fail) for line in self.file.read_text().splitlines()]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(tmp_path, monkeypatch)


def test_a_line_a_metric(run: Run) -> None:
    run.begin()
    run.make(2)
    run.log(2, loss=1.5, learning_rate=1e-3, grad_norm=0.7, epoch=0.1)
    run.log(2, eval_loss=1.0, eval_perplexity=2.7)
    run.make(3)
    run.log(5, loss=float("nan"))
    first, evaluated, last = run.read()
    assert first | {"step": 2, "loss": 1.5, "learning_rate": 1e-3, "grad_norm": 0.7} == first
    assert first["tokens_per_second"] == last["tokens_per_second"] == 200
    assert first["peak_allocated_bytes"] > 1 << 20
    assert evaluated == {"step": 2, "eval_loss": 1.0, "eval_perplexity": 2.7}
    assert last["loss"] is None, "NaN is no JSON"


def test_a_resumed_run_replaces_the_lines_of_steps_it_repeats(run: Run) -> None:
    run.begin()
    for step in (1, 2, 3):
        run.log(step, loss=float(step))
    with run.file.open("a") as file:
        file.write('{"step": 4, "lo')  # killed while writing
    run.begin(step=2)
    run.log(3, loss=30.0)
    assert [(line["step"], line["loss"]) for line in run.read()] == [(1, 1.0), (2, 2.0), (3, 30.0)]
    run.begin()
    assert run.read() == []


def test_only_the_first_rank_writes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    run.begin()
    run.log(1, loss=1.0)
    assert not run.file.exists()


@pytest.fixture
def shown(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Progress:
    """Ten minutes and four steps into a run of ten steps, two of which an earlier process had made."""
    now = iter([0.0, 600.0, 600.0])
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(now))
    monkeypatch.setattr(progress, "memory_bytes", lambda job: [1 << 30, 3 << 29, 2 << 30, 0])
    job = make_job(tmp_path, prediction__peak_reserved_bytes=2 << 30, prediction__device_used_bytes=3 << 30)
    made = Progress(replace(job, distributed=replace(job.distributed, device="cuda")), run.throughput)
    made.on_train_begin(None, at(2), None)
    run.make(4)
    return made


def test_a_line_where_there_is_no_terminal(shown: Progress, capsys: pytest.CaptureFixture[str]) -> None:
    shown.on_log(None, at(6), None, logs={"loss": 1.25, "learning_rate": 2e-5})
    told = "step 6 of 10: loss 1.250, lr 2.00e-05, 200 tokens/s, 1.5 of 2.0 planned GiB, 10:00 left"
    assert capsys.readouterr().out == f"axoc: {told}\n"


def test_a_cpu_s_resident_bytes_stand_beside_those_that_were_planned(shown: Progress) -> None:
    assert progress.against_plan(shown.job) == "1.5 of 2.0 planned GiB"
    on_cpu = replace(shown.job, distributed=replace(shown.job.distributed, device="cpu"))
    assert progress.against_plan(on_cpu) == "1.5 of 3.0 planned GiB"


def test_the_bar_on_a_terminal(
    shown: Progress, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    shown.on_train_begin(None, at(2), None)
    assert shown._bar is not None
    monkeypatch.setattr(progress.time, "perf_counter", lambda: 1200.0)
    shown.on_log(None, at(6), None, logs={"loss": 1.25, "learning_rate": 2e-5})
    shown.on_step_end(None, at(6), None)
    (task,) = shown._bar.tasks
    assert (task.completed, task.total) == (6, 10)
    for phase in ("evaluating", "saving", "training"):
        monkeypatch.setattr(progress.NOW, "phase", phase)
        shown.on_step_end(None, at(6), None)
        assert shown._bar.tasks[0].description == phase
    assert task.fields["status"].startswith("loss 1.250, lr 2.00e-05, 200 tokens/s, 1.5 of 2.0 planned GiB, ")
    shown.on_train_end(None, at(10), None)
    assert shown._bar is None and "step 6 of 10" not in capsys.readouterr().out, "the bar says it"


def test_utilization_on_a_device_whose_peak_is_known(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The plan has 40% at 1,000 tokens a second: 200 are 8%."""
    job = make_job(tmp_path, prediction__mfu=0.4, prediction__tokens_per_second=1000.0)
    made = Progress(job, run.throughput)
    made.on_train_begin(None, at(0), None)
    run.make(4)
    made.on_log(None, at(4), None, logs={"loss": 1.0, "learning_rate": 1e-5})
    assert "200 tokens/s, MFU 8.0%, " in capsys.readouterr().out


FOLLOWED = [
    ("step_begin", {}, "training"),
    ("step_end", {"should_evaluate": True, "should_save": True}, "evaluating"),
    ("evaluate", {"should_save": True}, "saving"),
    ("save", {}, "training"),
    ("step_end", {"should_save": True}, "saving"),
    ("save", {"should_training_stop": True}, "saving"),
    ("step_end", {"should_training_stop": True}, "saving"),
]


def test_the_phase_is_what_the_trainer_does_next(monkeypatch: pytest.MonkeyPatch) -> None:
    now = Activity()
    monkeypatch.setattr(activity, "NOW", now)
    follow = Follow()
    for event, asked, phase in FOLLOWED:
        flags = {"should_evaluate": False, "should_save": False, "should_training_stop": False} | asked
        getattr(follow, f"on_{event}")(None, at(3), SimpleNamespace(**flags))
        assert (now.phase, now.step) == (phase, 3), event
    assert now.longest_step_seconds > 0


def test_only_the_first_rank_speaks(
    shown: Progress, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    shown.on_log(None, at(6), None, logs={"loss": 1.25})
    assert capsys.readouterr().out == ""


def points(monkeypatch: pytest.MonkeyPatch, **made: Any) -> None:
    """Fake entry points: name -> what it loads."""
    found = [SimpleNamespace(name=n, value=f"mine:{n}", load=lambda m=m: m) for n, m in made.items()]
    monkeypatch.setattr(plugins, "entry_points", lambda group: found if group == "axoc_runtime.callbacks" else [])


def test_own_callbacks_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import TrainerCallback

    class Mine(TrainerCallback):
        pass

    class Other(TrainerCallback):
        pass

    points(monkeypatch, b=Mine, a=Other)
    assert [type(c) for c in plugins.own_callbacks()] == [Other, Mine]


def raising() -> None:
    raise OSError("no pager")


@pytest.mark.parametrize(("made", "told"), [(dict, "is no TrainerCallback"), (raising, "OSError: no pager")])
def test_a_broken_callback_is_named_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch, made: Any, told: str
) -> None:
    points(monkeypatch, pager=made)
    with pytest.raises(RuntimeFailure, match="'pager'") as caught:
        plugins.own_callbacks()
    assert told in str(caught.value) and "mine:pager" in str(caught.value) and caught.value.exit_code == 1


def test_a_cpu_run_gives_free_memory_back(tmp_path: Path) -> None:
    """At each micro-step: of 128 MiB in pieces below glibc's threshold every second one is free."""
    import ctypes

    from axoc_runtime.callbacks.trim import Trim, trim_function

    job = make_job(tmp_path)
    assert Trim(job).trim is not None and job.distributed.device == "cpu"
    if trim_function() is None:
        pytest.skip("another C library")
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    pieces = [libc.malloc(64 << 10) for _ in range(2048)]
    for place in pieces:
        ctypes.memset(place, 1, 64 << 10)
    for place in pieces[::2]:
        libc.free(place)
    before = resident_kib()
    Trim(job).on_substep_end(None, None, None)
    after = resident_kib()
    for place in pieces[1::2]:
        libc.free(place)
    assert before - after > 32 << 10


def resident_kib() -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
