"""How a job's processes share their work, as far as one of them needs memory for it: alone, or with DDP's buckets."""

from __future__ import annotations

from typing import Any, Final, Literal

import torch

from axoc_runtime.job import Job
from axoc_runtime.trace.liveness import Liveness
from axoc_runtime.trace.optimizers import optimizer_for, trained

BUCKET_BYTES: Final = 25 << 20
FIRST_BUCKET_BYTES: Final = 1 << 20
"""torch/nn/parallel/distributed.py: bucket_cap_mb, and dist._DEFAULT_FIRST_BUCKET_BYTES."""


Rank = Literal["fullest", "last"]
"""Whose memory is followed, where ranks differ."""


class Strategy:
    """One process alone: the Trainer's own loop. The others differ in what they override."""

    lowers = True
    """accelerate wraps the forward in autocast and raises its outputs to fp32."""
    steps_alike = True
    """What is there between two steps is the same after the first as after later ones."""

    def __init__(self, job: Job, live: Liveness) -> None:
        self.job, self.live = job, live
        self.model: Any = None
        self.optimizer: Any = None

    def weights_dtype(self) -> torch.dtype | None:
        """What weights are turned into before they reach the device; None: nothing else."""
        return None

    def take(self, model: Any) -> None:
        """Gets the model ready to be trained."""
        self.model = model
        self.optimizer = optimizer_for(self.job, model)

    def before_forward(self, *, last: bool) -> None:
        """At the start of each micro-batch. ``last``: of a step."""

    def after_backward(self, *, last: bool) -> None:
        """At the end of each micro-batch. ``last``: the update comes next."""

    def update(self) -> None:
        """Clips, steps, and leaves no gradients."""
        if self.job.training.max_grad_norm > 0:
            torch.nn.utils.clip_grad_norm_(trained(self.model), self.job.training.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def close(self) -> None:
        """At the end, whatever happened."""

    def least_parameters(self) -> int:
        """Parameters in repeated blocks from which on each more block costs the same."""
        return 0


class DataParallel(Strategy):
    """DDP copies gradients into buckets of its own to reduce them: gradient_as_bucket_view is off in the Trainer. The
    buckets are whole parameters, from the last to the first, and stay (torch/csrc/distributed/c10d/reducer.cpp)."""

    def take(self, model: Any) -> None:
        super().take(model)
        self.buckets = [torch.empty(n, dtype=t) for n, t in bucket_sizes(trained(model))]


def bucket_sizes(parameters: list[Any]) -> list[tuple[int, torch.dtype]]:
    """(elements, dtype) of each bucket, by torch's own assignment."""
    backwards = parameters[::-1]
    limits = [FIRST_BUCKET_BYTES, BUCKET_BYTES]
    assign = torch.distributed._compute_bucket_assignment_by_size  # type: ignore[attr-defined]
    assigned, _ = assign(backwards, limits, [False] * len(backwards))
    return [(sum(backwards[i].numel() for i in group), backwards[group[0]].dtype) for group in assigned]
