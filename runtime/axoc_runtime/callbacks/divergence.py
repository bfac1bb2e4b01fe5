"""A loss or a gradient that is no number ends the run, before it is in a checkpoint and before anything is told of it.

The Trainer's own filter writes the last mean in its place (``logging_nan_inf_filter``) and trains on. Here every rank learns
of it in the same step, by one all-reduce of three numbers, so that all end alike and none waits for the others.

A GPU's numbers are read a step later, or before a log, an evaluation or a checkpoint where one is due: to wait for them would
leave it without work after each step.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final, NamedTuple

import torch
import torch.distributed as dist
from transformers import TrainerCallback

from axoc_runtime.checkpoint.complete import complete
from axoc_runtime.errors import EXIT_TRAINING, RuntimeFailure
from axoc_runtime.job import Job
from axoc_runtime.objectives.perplexity import IGNORED
from axoc_runtime.strategies import rank

SHOWN_CHARACTERS: Final = 400


class Made(NamedTuple):
    """A step, and what is to be read of it."""

    step: int
    batches: list[tuple[Any, Any]]
    """Inputs and loss of each micro-step."""
    rate: float
    numbers: torch.Tensor
    """On the host: sum of losses over ranks, ranks whose loss is no number, ranks whose gradient's norm is none."""
    arrived: Any
    """Event of the copy; None where there is nothing to wait for."""

    def read(self) -> list[float]:
        if self.arrived is not None:
            self.arrived.synchronize()
        return [float(n) for n in self.numbers]


class Divergence(TrainerCallback):
    """Sees each micro-batch and its loss by standing before the Trainer's own methods, whatever trainer it is."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.trainer: Any = None
        self.last_good: float | None = None
        """Mean loss of the last step in which all was finite."""
        self._batches: list[tuple[Any, Any]] = []
        """Of this step: inputs, loss."""
        self._unread: list[Made] = []
        self._norm: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainer = self.trainer
        trainer.args.logging_nan_inf_filter = False
        step, norm = trainer.training_step, trainer._get_grad_norm

        def training_step(model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
            loss = step(model, inputs, *rest, **more)
            self._batches.append((inputs, loss.detach()))
            return loss

        def grad_norm(*rest: Any, **more: Any) -> Any:
            self._norm = norm(*rest, **more)
            return self._norm

        trainer.training_step, trainer._get_grad_norm = training_step, grad_norm

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """DeepSpeed has stepped by then, and is stopped before it saves."""
        batches, self._batches = self._batches, []
        loss = torch.stack([loss.float() for _, loss in batches]).sum()
        lost, bad_norm = (~torch.isfinite(loss)).float(), (~torch.isfinite(self._gradient(loss.device))).float()
        together = torch.stack([torch.nan_to_num(loss, 0.0, 0.0, 0.0), lost, bad_norm])
        if dist.is_initialized():
            dist.all_reduce(together)
        made = Made(state.global_step + 1, batches, self.trainer._get_learning_rate(), *_on_its_way(together))
        self._unread.append(made)
        self._read(leave=0 if self.job.distributed.device == "cpu" else 1)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if control.should_log or control.should_evaluate or control.should_save or control.should_training_stop:
            self._read()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._read()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._read()

    def _read(self, leave: int = 0) -> None:
        """All steps but the last ``leave``."""
        while len(self._unread) > leave:
            made = self._unread.pop(0)
            mean, lost_on, norms = made.read()
            if lost_on or norms:
                self._stop(made, loss=bool(lost_on))
            self.last_good = mean / (dist.get_world_size() if dist.is_initialized() else 1)

    def _gradient(self, device: torch.device) -> torch.Tensor:
        """The norm over all ranks. In fp16 one that is infinite is a scale that was too large, and the step is skipped."""
        if self._norm is None or self.job.distributed.mixed_precision == "fp16":
            return torch.zeros((), device=device)
        norm = self._norm.full_tensor() if hasattr(self._norm, "full_tensor") else self._norm
        return torch.as_tensor(norm, dtype=torch.float32, device=device)

    def _stop(self, made: Made, *, loss: bool) -> None:
        """Raises on every rank."""
        step, batches, rate = made.step, made.batches, made.rate
        mine = {"rank": rank(), "losses": [float(value) for _, value in batches], "rows": self._rows(batches)}
        found: list[Any] = [mine]
        if dist.is_initialized():
            found = [None] * dist.get_world_size()
            dist.all_gather_object(found, mine)
        what = "the loss" if loss else "the gradient"
        good = "no step was good" if self.last_good is None else f"the last good loss was {self.last_good:.4g}"
        message = f"{what} is no number at step {step} (learning rate {rate:.3g}; {good}); {_batch(found)}"
        raise RuntimeFailure(message, EXIT_TRAINING, self._fix(step, found), everywhere=True)

    def _fix(self, step: int, found: list[Any]) -> str:
        kept = complete(self.job.output)
        resume = f"--resume goes on from {kept[-1].name}" if kept else "no checkpoint had been written yet"
        path = self.job.output / "logs" / f"step-{step}-rows.json"
        if rank() == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(_plain(found), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return f"a smaller training.learning_rate, or look at the batch's rows in {path}; {resume}"

    def _rows(self, batches: list[tuple[Any, Any]]) -> list[dict[str, Any]]:
        """Each row's number among the prepared ones (None where the trainer's collator made another of it), and its text."""
        tokens = [row for inputs, _ in batches for row in token_rows(inputs)]
        numbers = find_rows(self.trainer.train_dataset, tokens)
        tokenizer = self.trainer.processing_class
        texts = [str(tokenizer.decode(row))[:SHOWN_CHARACTERS] for row in tokens]
        return [{"row": n, "text": text} for n, text in zip(numbers, texts, strict=True)]


def _on_its_way(numbers: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """The tensor on the host, and the event after which it may be read."""
    if not numbers.is_cuda:
        return numbers, None
    host = torch.empty_like(numbers, device="cpu", pin_memory=True)
    host.copy_(numbers, non_blocking=True)
    arrived: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record()
    return host, arrived


def token_rows(inputs: Any) -> Iterator[list[int]]:
    """The rows of a batch without their padding; of packs their documents."""
    if not isinstance(inputs, dict) or "input_ids" not in inputs:
        return
    ids, mask = inputs["input_ids"], inputs.get("attention_mask")
    if "cu_seq_lens_q" in inputs:
        for start, end in pairwise(inputs["cu_seq_lens_q"].tolist()):
            if bool((inputs["labels"][0, start:end] != IGNORED).any()):  # else it is padding
                yield ids[0, start:end].tolist()
        return
    for index, row in enumerate(ids):
        kept = row if mask is None or mask.shape != ids.shape else row[mask[index].bool()]
        yield [int(token) for token in kept]


def find_rows(dataset: Any, wanted: list[list[int]]) -> list[int | None]:
    """Their numbers in ``dataset``, or among the rows that its packs are of. Lengths are compared first, so that few rows are
    read."""
    rows = getattr(dataset, "rows", dataset)
    if "input_ids" not in (getattr(rows, "column_names", None) or []):
        return [None] * len(wanted)
    lengths = {len(row) for row in wanted}
    every = rows.lengths() if hasattr(rows, "lengths") else [len(ids) for ids in rows["input_ids"]]
    candidates = [i for i, length in enumerate(every) if int(length) in lengths]
    known = {tuple(int(t) for t in rows[i]["input_ids"]): i for i in candidates}
    return [known.get(tuple(row)) for row in wanted]


def _batch(found: list[Any]) -> str:
    """Which ranks lost it, and the rows of their batches."""
    bad = [f for f in found if not all(math.isfinite(loss) for loss in f["losses"])] or found
    return "; ".join(f"rows of rank {f['rank']}: {_numbers(f['rows'])}" for f in bad)


def _numbers(rows: list[dict[str, Any]]) -> str:
    return ", ".join("?" if r["row"] is None else str(r["row"]) for r in rows[:16]) or "unknown"


def _plain(found: list[Any]) -> list[Any]:
    """JSON has no NaN."""
    return [f | {"losses": [str(loss) for loss in f["losses"]]} for f in found]
