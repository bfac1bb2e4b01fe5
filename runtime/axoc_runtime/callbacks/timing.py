"""Seconds of each optimizer step, and tokens a second."""

from __future__ import annotations

import statistics
from typing import Any

import torch
from transformers import TrainerCallback

from axoc_runtime.callbacks.spans import Spans
from axoc_runtime.strategies import world_size

WARM_UP_STEPS = 3
"""Left out of the median: allocator, autotuning and caches are still settling."""


class Timing(TrainerCallback):
    def __init__(self) -> None:
        self.spans = Spans(on_device=torch.cuda.is_available())

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.spans.begin()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.spans.end()

    @property
    def steps(self) -> list[float]:
        """Seconds of each. Reading them waits for the device, so they are read where something is told."""
        return self.spans.seconds

    @property
    def median_seconds(self) -> float | None:
        """Of the steps after the warm-up; of all where there are no more."""
        settled = self.steps[WARM_UP_STEPS:] or self.steps
        return statistics.median(settled) if settled else None

    @property
    def total_seconds(self) -> float:
        return self.spans.total


class Throughput:
    """Real (non-padding) tokens a second of all ranks, taken as alike, while steps are made: no evaluation, no saving."""

    def __init__(self, timing: Timing) -> None:
        self.timing = timing
        self.trainer: Any = None
        self._last = (0, 0.0)

    def overall(self) -> float:
        """Of this run so far; 0 before its first step."""
        seconds = self.timing.total_seconds
        return self.trainer.tokens_seen * world_size() / seconds if seconds > 0 else 0.0

    def since_last(self) -> float | None:
        """Since the last call; None where no step was made."""
        tokens, seconds = self.trainer.tokens_seen, self.timing.total_seconds
        made, took = tokens - self._last[0], seconds - self._last[1]
        self._last = (tokens, seconds)
        return made * world_size() / took if took > 0 else None
