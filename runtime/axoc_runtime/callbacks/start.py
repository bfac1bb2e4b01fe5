"""At the start of training, when the model is wrapped: assert the plan and measure the held-out split once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from axoc_runtime.assertions import assert_plan
from axoc_runtime.files import write_json
from axoc_runtime.job import Job
from axoc_runtime.models.architecture import require_causal, unknown
from axoc_runtime.objectives.registry import objective_of
from axoc_runtime.strategies import rank


class Start(TrainerCallback):
    """Keeps the held-out figures before training; a resumed run reads it from the first run's file."""

    def __init__(self, job: Job, *, resumed: bool) -> None:
        self.job, self.resumed = job, resumed
        self.trainer: Any = None
        self.asserted: dict[str, Any] = {}
        self.before: dict[str, float] | None = None

    @property
    def file(self) -> Path:
        return self.job.output / "before.json"

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.asserted = assert_plan(self.job, self.trainer) | self.trainer.asserted()
        if unknown(self.job) and objective_of(self.job).answers:
            require_causal(self.trainer.model, self.trainer.model_wrapped, self.trainer.args.device)
        if self.trainer.eval_dataset is None:
            return
        if self.resumed and self.file.is_file():
            self.before = json.loads(self.file.read_text(encoding="utf-8"))
            return
        self.before = self.trainer.held_out()
        if rank() == 0:
            write_json(self.file, self.before)
            headline = objective_of(self.job).figures[0]
            print(f"axoc: held-out {headline.title} before training {self.before[headline.name]:.4g}", flush=True)
