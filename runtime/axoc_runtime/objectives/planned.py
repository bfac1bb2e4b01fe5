"""What every Trainer of this runtime has in common: planned checkpointing and sharding, whole checkpoints, counted tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from axoc_runtime.checkpoint.trainer import Resumable
from axoc_runtime.job import Job
from axoc_runtime.kernels import put_kernels
from axoc_runtime.models.load import set_checkpointing
from axoc_runtime.strategies import after_accelerator

ATTENTION_MASKS = ("attention_mask", "chosen_attention_mask", "rejected_attention_mask")
"""Of the sequences that are trained on, by the names that collators give them."""


class Planned(Resumable):
    """Goes before a subclass of transformers' Trainer among the bases."""

    control: Any

    def __init__(self, job: Job, **kwargs: Any) -> None:
        self.job = job
        self.tokens_seen = 0.0
        """Real (non-padding) tokens of this rank; of those that tensor-parallel ranks share, its equal part."""
        self.padded_tokens_seen = 0.0
        put_kernels(job, kwargs["model"])  # the Trainer looks at what the model's forward takes
        super().__init__(**kwargs)
        set_checkpointing(job, self.model)

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        after_accelerator(self.job, self)

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        self.count(inputs)
        loss: torch.Tensor = super().training_step(model, inputs, *args, **kwargs)
        return loss

    def count(self, inputs: Mapping[str, Any]) -> None:
        """Tokens of a batch: of all the sequences it has."""
        share = self.job.distributed.tensor_parallel
        for mask in (v for k, v in inputs.items() if k in ATTENTION_MASKS):
            self.tokens_seen += int(mask.sum()) / share
            self.padded_tokens_seen += mask.numel() / share

    def held_out(self) -> dict[str, float]:
        """The objective's figures on the held-out rows, of the model as it is; nothing is logged."""
        raise NotImplementedError

    def asserted(self) -> dict[str, Any]:
        """What the objective was planned to hold beside the model. Raises RuntimeFailure where it does not."""
        return {}


def padding_token(tokenizer: Any) -> int:
    """Padding is masked everywhere, so any id will do where the tokenizer names none."""
    return next((int(i) for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)
