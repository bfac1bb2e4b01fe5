"""What every Trainer of this runtime has in common: planned checkpointing and sharding, whole checkpoints, counted tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from axoc_runtime.callbacks.spans import Spans
from axoc_runtime.checkpoint.trainer import Resumable
from axoc_runtime.job import Job
from axoc_runtime.kernels import put_kernels
from axoc_runtime.models.load import set_checkpointing
from axoc_runtime.objectives.perplexity import IGNORED
from axoc_runtime.optimizers import own_optimizer
from axoc_runtime.preparation.rows import Packs
from axoc_runtime.strategies import after_accelerator

ATTENTION_MASKS = ("attention_mask", "chosen_attention_mask", "rejected_attention_mask")
"""Of the sequences that are trained on, by the names that collators give them."""


class Planned(Resumable):
    """Goes before a subclass of transformers' Trainer among the bases."""

    control: Any
    eval_dataset: Any
    is_in_train: bool

    def __init__(self, job: Job, **kwargs: Any) -> None:
        self.job = job
        self.padded_tokens_seen = 0.0
        self.waited = Spans(on_device=job.distributed.device == "cuda")
        """For input: the device's time between the end of its work and the next batch's coming."""
        self._seen: Any = 0
        put_kernels(job, kwargs["model"])  # the Trainer looks at what the model's forward takes
        super().__init__(**kwargs, **own_optimizer(job))
        set_checkpointing(job, self.model)

    @property
    def tokens_seen(self) -> float:
        """Real (non-padding) tokens of this rank; of those that tensor-parallel ranks share, its equal part. They are counted
        on the device, which is waited for when they are read."""
        return float(self._seen) / self.job.distributed.tensor_parallel

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        after_accelerator(self.job, self)

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        self.count(inputs)
        loss: torch.Tensor = super().training_step(model, inputs, *args, **kwargs)
        return loss

    def count(self, inputs: Mapping[str, Any]) -> None:
        """Tokens of a batch: of all the sequences it has."""
        if "cu_seq_lens_q" in inputs:
            self.add_tokens(real_tokens(inputs), inputs["labels"].numel())
        for mask in (v for k, v in inputs.items() if k in ATTENTION_MASKS):
            self.add_tokens(mask.sum(), mask.numel())

    def add_tokens(self, real: torch.Tensor, padded: int) -> None:
        self._seen = self._seen + real.detach()
        self.padded_tokens_seen += padded / self.job.distributed.tensor_parallel

    def get_batch_samples(self, epoch_iterator: Iterator[Any], *rest: Any, **more: Any) -> Any:
        return super().get_batch_samples(Waited(epoch_iterator, self.waited), *rest, **more)

    def floating_point_ops(self, inputs: Any) -> float:
        """transformers counts weights anew in every micro-step for a figure that nothing here reads."""
        return 0.0

    def rows_to_evaluate(self, given: Any) -> Any:
        """``given`` where it was; else all held-out rows, or during training the sample that the plan wants."""
        if given is not None or not self.is_in_train or not self.samples:
            return self.eval_dataset if given is None else given
        return sample(self.eval_dataset, int(self.job.training.eval_rows or 0), self.job.training.seed)

    @property
    def samples(self) -> bool:
        """Evaluations during training look at fewer rows than there are."""
        wanted = self.job.training.eval_rows
        return wanted is not None and self.eval_dataset is not None and wanted < counted(self.eval_dataset)

    def held_out(self) -> dict[str, float]:
        """The objective's figures on the held-out rows, of the model as it is; nothing is logged."""
        raise NotImplementedError

    def asserted(self) -> dict[str, Any]:
        """What the objective was planned to hold beside the model. Raises RuntimeFailure where it does not."""
        return {}


class Waited:
    """An iterator whose ``next`` is measured."""

    def __init__(self, batches: Iterator[Any], spans: Spans) -> None:
        self.batches, self.spans = batches, spans

    def __iter__(self) -> Waited:
        return self

    def __next__(self) -> Any:
        self.spans.begin()
        batch = next(self.batches)
        self.spans.end()
        return batch


def real_tokens(packed: Mapping[str, Any]) -> torch.Tensor:
    """Of a pack: up to the end of the last document that something is learned from; what comes after it is padding. Nothing
    is waited for."""
    labels, ends = packed["labels"].flatten(), packed["cu_seq_lens_q"]
    place = torch.arange(1, len(labels) + 1, device=labels.device, dtype=ends.dtype)
    last_learned = (place * (labels != IGNORED)).max()
    found: torch.Tensor = ends[torch.searchsorted(ends, last_learned)]
    return found


def counted(rows: Any) -> int:
    """Rows, those of packs one by one."""
    return len(rows.rows) if isinstance(rows, Packs) else len(rows)


def sample(rows: Any, size: int, seed: int) -> Any:
    """``size`` of the rows, drawn without replacement, in their order: the same ones on every rank and at every call. Of
    packs as many as hold about so many rows."""
    if isinstance(rows, Packs):
        size = math.ceil(size * len(rows) / counted(rows))
    chosen = np.random.default_rng(seed).choice(len(rows), size=size, replace=False)
    return rows.select(sorted(int(i) for i in chosen))


def padding_token(tokenizer: Any) -> int:
    """Padding is masked everywhere, so any id will do where the tokenizer names none."""
    return next((int(i) for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)
