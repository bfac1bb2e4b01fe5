"""One bar for the whole run on a terminal, plain lines elsewhere: phase, step, loss, learning rate, tokens a second, MFU,
memory against the plan, time left."""

from __future__ import annotations

import sys
import time
from typing import Any

from transformers import TrainerCallback

from axoc_runtime.callbacks.timing import Throughput
from axoc_runtime.comparison import GIB
from axoc_runtime.failure.activity import NOW
from axoc_runtime.job import Job
from axoc_runtime.metrics import memory_bytes, mfu
from axoc_runtime.objectives.registry import objective_of
from axoc_runtime.strategies import rank


class Progress(TrainerCallback):
    """Shows rank 0's view; tokens are those of all ranks, taken as alike."""

    def __init__(self, job: Job, throughput: Throughput) -> None:
        self.job, self.throughput = job, throughput
        self.loss, self.learning_rate = float("nan"), float("nan")
        self.rate = 0.0
        """Tokens a second as of the last log: to know it, the device is waited for."""
        self.memory = ""
        self._bar: Any = None
        self._task: Any = None
        self._start = (0.0, 0)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._start = (time.perf_counter(), state.global_step)
        if rank() == 0 and sys.stderr.isatty():
            self._open(state)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._show(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """What comes next may take longer than a step: it is named before it begins."""
        self._show(state)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._show(state)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._show(state)

    def _show(self, state: Any) -> None:
        if self._bar is not None:
            self._bar.update(self._task, description=NOW.phase, completed=state.global_step, status=self._status(state))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        logs = logs or {}
        self.loss = logs.get("loss", self.loss)
        self.learning_rate = logs.get("learning_rate", self.learning_rate)
        self.rate = self.throughput.overall()
        if rank() != 0:
            return
        self.memory = against_plan(self.job)
        told = objective_of(self.job).told(logs)
        if told is not None:
            self._say(f"step {state.global_step}: held-out {told}")
        elif "loss" in logs and self._bar is None:
            self._say(f"step {state.global_step} of {state.max_steps}: {self._status(state)}")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _open(self, state: Any) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar
        from rich.table import Column

        columns = (TextColumn("{task.description:<10}"), BarColumn(bar_width=None), MofNCompleteColumn())
        status = TextColumn("{task.fields[status]}", table_column=Column(no_wrap=True))
        self._bar = Bar(*columns, status, console=Console(stderr=True), expand=True)
        self._task = self._bar.add_task(NOW.phase, total=state.max_steps, completed=state.global_step, status="")
        self._bar.start()

    def _status(self, state: Any) -> str:
        """The time left counts evaluations and checkpoints as they have come so far; tokens a second are those of steps."""
        began, first_step = self._start
        if state.global_step == first_step:
            return "first step"
        done = max(state.global_step - first_step, 1)
        left = (state.max_steps - state.global_step) * (time.perf_counter() - began) / done
        share = mfu(self.job, self.rate)
        utilization = [] if share is None else [f"MFU {share:.1%}"]
        parts = [f"loss {self.loss:.3f}", f"lr {self.learning_rate:.2e}", f"{self.rate:,.0f} tokens/s", *utilization]
        return ", ".join([*parts, *([self.memory] if self.memory else []), f"{clock(left)} left"])

    def _say(self, line: str) -> None:
        if self._bar is not None:
            self._bar.console.print(line)
        else:
            print(f"axoc: {line}", flush=True)


def against_plan(job: Job) -> str:
    """What this rank has reserved at its peak so far, on a CPU all its resident bytes; a plan that counts none is left out."""
    on_cpu, planned_for = job.distributed.device == "cpu", job.prediction
    reserved_bytes = memory_bytes(job)[1]
    planned_bytes = planned_for.device_used_bytes if on_cpu else planned_for.peak_reserved_bytes
    planned = f" of {planned_bytes / GIB:.1f} planned" if planned_bytes else ""
    return f"{reserved_bytes / GIB:.1f}{planned} GiB"


def clock(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
