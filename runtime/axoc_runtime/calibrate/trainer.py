"""What transformers' Trainer adds to a step on the host: seconds of its steps over those of the model alone."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from typing import Any, Final

import torch

from axoc_runtime.calibrate.clock import Clock, now
from axoc_runtime.calibrate.host import DEPTHS, _model_seconds, make_model
from axoc_runtime.calibrate.tables import Point, Table, Value

STEPS: Final = 14
SETTLED: Final = 4


def table(*, small: bool) -> Table:
    return Table(
        name="host_trainer",
        about="seconds of Trainer's optimizer step of a tiny Llama (fp32, bf16 autocast, fused AdamW, clipping), "
        "begin to end of step with the device waited for, and of its model's forward and backward alone",
        keys=("layers", "accumulation"),
        values=("step_seconds", "model_seconds"),
        points=[(DEPTHS[0], 1)] if small else [(DEPTHS[0], 1), (DEPTHS[1], 1), (DEPTHS[0], 4)],
        measure=_measure,
        needs=("transformers", "accelerate"),
    )


class Rows:
    def __len__(self) -> int:
        return 10_000

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if index >= len(self):
            raise IndexError(index)
        tokens = torch.full((32,), 7)
        return {"input_ids": tokens, "labels": tokens}


def _measure(clock: Clock, point: Point) -> Sequence[Value]:
    from transformers import Trainer, TrainingArguments

    layers, accumulation = int(point[0]), int(point[1])
    timing = _timing(clock)
    with tempfile.TemporaryDirectory(prefix="axoc-calibrate-") as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            bf16=True,
            use_cpu=clock.device.type == "cpu",
            per_device_train_batch_size=1,
            gradient_accumulation_steps=accumulation,
            max_steps=STEPS,
            optim="adamw_torch_fused",
            logging_steps=1,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        arguments._n_gpu = min(arguments.n_gpu, 1)  # of several it would make a DataParallel
        model = make_model(clock, "llama", "fp32", False, layers)
        rows: Any = Rows()
        trainer = Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[timing])
        trainer.log = lambda *args, **kwargs: None  # its own printing is not part of a step
        trainer.train()
    step = statistics.median(timing.steps[SETTLED:])
    return step, accumulation * sum(_model_seconds(clock, "llama", "fp32", False, layers))


def _timing(clock: Clock) -> Any:
    from transformers import PrinterCallback, TrainerCallback

    PrinterCallback.on_log = lambda *args, **kwargs: None

    class Timing(TrainerCallback):
        def __init__(self) -> None:
            self.steps: list[float] = []
            self.began = 0.0

        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            clock.synchronize()
            self.began = now()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            clock.synchronize()
            self.steps.append(now() - self.began)

    return Timing()
