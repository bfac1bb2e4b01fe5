"""Keeps ``failure.activity.NOW`` true: what the Trainer is about to do is known at the end of each step."""

from __future__ import annotations

import time
from typing import Any

from transformers import TrainerCallback

from axoc_runtime.failure.activity import EVALUATING, NOW, SAVING, TRAINING


class Follow(TrainerCallback):
    """The Trainer evaluates, then saves, after the callbacks of a step's end have asked for it."""

    def __init__(self) -> None:
        self._began = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._began = time.perf_counter()
        NOW.enter(TRAINING, state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        NOW.longest_step_seconds = max(NOW.longest_step_seconds, time.perf_counter() - self._began)
        self._next(state, control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._next(state, control)

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        NOW.enter(TRAINING, state.global_step)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        NOW.enter(SAVING if control.should_save or control.should_training_stop else TRAINING, state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        NOW.enter(SAVING if control.should_training_stop else TRAINING, state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        NOW.enter(SAVING, state.global_step)

    def _next(self, state: Any, control: Any) -> None:
        """After the last step the best model may be loaded, and the last is saved: no step is waited for."""
        saves = control.should_save or control.should_training_stop
        phase = EVALUATING if control.should_evaluate else SAVING if saves else TRAINING
        NOW.enter(phase, state.global_step)
