"""A progress bar on a terminal, plain lines elsewhere: step, loss, learning rate, tokens a second, memory, time left."""

from __future__ import annotations

import sys
import time
from typing import Any

from transformers import TrainerCallback

from axoc_runtime.callbacks.timing import Throughput
from axoc_runtime.comparison import GIB
from axoc_runtime.job import Job
from axoc_runtime.metrics import memory_bytes
from axoc_runtime.objectives.registry import objective_of
from axoc_runtime.strategies import rank


class Progress(TrainerCallback):
    """Shows rank 0's view; tokens are those of all ranks, taken as alike."""

    def __init__(self, job: Job, throughput: Throughput) -> None:
        self.job, self.throughput = job, throughput
        self.loss, self.learning_rate = float("nan"), float("nan")
        self.memory = ""
        self._bar: Any = None
        self._task: Any = None
        self._start = (0.0, 0)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._start = (time.perf_counter(), state.global_step)
        if rank() == 0 and sys.stderr.isatty():
            self._open(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=state.global_step, status=self._status(state))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        logs = logs or {}
        self.loss = logs.get("loss", self.loss)
        self.learning_rate = logs.get("learning_rate", self.learning_rate)
        if rank() != 0:
            return
        self.memory = against_plan(memory_bytes(self.job)[1], self.job.prediction.peak_reserved_bytes)
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

        columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[status]}"))
        self._bar = Bar(*columns, console=Console(stderr=True))
        self._task = self._bar.add_task("training", total=state.max_steps, completed=state.global_step, status="")
        self._bar.start()

    def _status(self, state: Any) -> str:
        """The time left counts evaluations and checkpoints as they have come so far; tokens a second are those of steps."""
        began, first_step = self._start
        done = max(state.global_step - first_step, 1)
        left = (state.max_steps - state.global_step) * (time.perf_counter() - began) / done
        parts = [f"loss {self.loss:.3f}", f"lr {self.learning_rate:.2e}", f"{self.throughput.overall():,.0f} tokens/s"]
        return ", ".join([*parts, *([self.memory] if self.memory else []), f"{clock(left)} left"])

    def _say(self, line: str) -> None:
        if self._bar is not None:
            self._bar.console.print(line)
        else:
            print(f"axoc: {line}", flush=True)


def against_plan(reserved_bytes: float, planned_bytes: int) -> str:
    """Of this rank, at its peak so far; a plan that counts none is left out."""
    planned = f" of {planned_bytes / GIB:.1f} planned" if planned_bytes else ""
    return f"{reserved_bytes / GIB:.1f}{planned} GiB"


def clock(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
