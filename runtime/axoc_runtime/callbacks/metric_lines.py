"""metrics.jsonl: every logged metric as a line of JSON, for whoever reads a run by program."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from axoc_runtime.callbacks.timing import Throughput
from axoc_runtime.files import write_text
from axoc_runtime.job import Job
from axoc_runtime.metrics import memory_bytes, mfu
from axoc_runtime.strategies import rank

MEMORY = ("peak_allocated_bytes", "peak_reserved_bytes", "device_used_bytes", "peak_host_bytes_per_process")


class MetricLines(TrainerCallback):
    """Rank 0 writes. ``step`` is in every line; loss, learning_rate, grad_norm, tokens_per_second and memory are in those of
    training, ``eval_*`` in those of evaluation. What is no number (a loss that has diverged) is null, as JSON has no NaN."""

    def __init__(self, job: Job, throughput: Throughput) -> None:
        self.job, self.throughput = job, throughput
        self.file = job.output / "metrics.jsonl"

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A resumed run repeats the steps after its checkpoint: their lines go, as does one that a kill cut short."""
        if rank() == 0:
            earlier = _lines(self.file) if state.global_step else []
            kept = [line for line in earlier if line["step"] <= state.global_step]
            write_text(self.file, "".join(_line(k) for k in kept))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if rank() != 0:
            return
        value: dict[str, Any] = {"step": state.global_step, **(logs or {})}
        if "loss" in value:
            rate = self.throughput.since_last()
            value |= {"tokens_per_second": rate, "mfu": None if rate is None else mfu(self.job, rate)}
            value |= {k: int(v) for k, v in zip(MEMORY, memory_bytes(self.job), strict=True)}
        with self.file.open("a", encoding="utf-8") as file:
            file.write(_line(value))


def _line(value: dict[str, Any]) -> str:
    finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in value.items()}
    return json.dumps(finite, ensure_ascii=False) + "\n"


def _lines(path: Path) -> list[dict[str, Any]]:
    """Whole lines; those before one that is not stay."""
    found: list[dict[str, Any]] = []
    if not path.is_file():
        return found
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found
