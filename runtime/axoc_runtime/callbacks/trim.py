"""On a CPU: memory that is free goes back to the kernel before each micro-step."""

from __future__ import annotations

import ctypes
from typing import Any

from transformers import TrainerCallback

from axoc_runtime.job import Job


class Trim(TrainerCallback):
    """glibc keeps what tensors leave in its heap, and torch's requests, which are for borders of 64 bytes, do not fit the holes of
    others like them: from step to step a process grows to over twice what it uses. malloc_trim gives all free pages back,
    between the tensors that stay too; the plan's host memory counts on it (cost/replay/heap.py)."""

    def __init__(self, job: Job) -> None:
        self.trim = trim_function() if job.distributed.device == "cpu" else None

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.give_back()

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.give_back()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """An evaluation or a checkpoint may follow."""
        self.give_back()

    def give_back(self) -> None:
        if self.trim is not None:
            self.trim(0)


def trim_function() -> Any:
    """glibc's; None where the C library is another."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
