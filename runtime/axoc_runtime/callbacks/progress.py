"""A progress bar on a terminal, plain lines elsewhere: step, loss, tokens a second, time left."""

from __future__ import annotations

import sys
import time
from typing import Any

from transformers import TrainerCallback

from axoc_runtime.strategies import rank, world_size


class Progress(TrainerCallback):
    """Shows rank 0's view; tokens are those of all ranks, taken as alike."""

    def __init__(self) -> None:
        self.trainer: Any = None
        self.loss = float("nan")
        self._bar: Any = None
        self._task: Any = None
        self._start = (0.0, 0, 0)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._start = (time.perf_counter(), state.global_step, self.trainer.tokens_seen)
        if rank() == 0 and sys.stderr.isatty():
            self._open(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=state.global_step, status=self._status(state))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        logs = logs or {}
        self.loss = logs.get("loss", self.loss)
        if rank() != 0:
            return
        if "eval_perplexity" in logs:
            self._say(f"step {state.global_step}: held-out perplexity {logs['eval_perplexity']:.2f}")
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
        began, first_step, first_tokens = self._start
        seconds = max(time.perf_counter() - began, 1e-9)
        tokens = (self.trainer.tokens_seen - first_tokens) * world_size() / seconds
        done = max(state.global_step - first_step, 1)
        left = (state.max_steps - state.global_step) * seconds / done
        return f"loss {self.loss:.3f}, {tokens:,.0f} tokens/s, {clock(left)} left"

    def _say(self, line: str) -> None:
        if self._bar is not None:
            self._bar.console.print(line)
        else:
            print(f"axoc: {line}", flush=True)


def clock(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
