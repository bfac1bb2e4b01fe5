"""Seconds of each optimizer step."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from transformers import TrainerCallback

WARM_UP_STEPS = 3
"""Left out of the median: allocator, autotuning and caches are still settling."""


class Timing(TrainerCallback):
    def __init__(self) -> None:
        self.steps: list[float] = []
        self._started = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        _wait()
        self._started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        _wait()
        self.steps.append(time.perf_counter() - self._started)

    @property
    def median_seconds(self) -> float | None:
        """Of the steps after the warm-up; of all where there are no more."""
        settled = self.steps[WARM_UP_STEPS:] or self.steps
        return statistics.median(settled) if settled else None

    @property
    def total_seconds(self) -> float:
        return sum(self.steps)


def _wait() -> None:
    """A GPU works on behind the host's back."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
