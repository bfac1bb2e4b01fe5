"""Compiled blocks: Dynamo, AOTAutograd and Inductor are torch's own, and so is what a compiled block saves and holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import _pop_mode_temporarily

from axoc_runtime.errors import EXIT_INPUTS, RuntimeFailure
from axoc_runtime.job import Job
from axoc_runtime.models.load import decoder_blocks
from axoc_runtime.trace.device import Device


@contextmanager
def compiling(job: Job, device: Device) -> Iterator[None]:
    """Where blocks may be compiled, for ``device``."""
    if not job.model.compile:
        yield
        return
    from axoc_runtime.trace.inductor import inductor

    torch._dynamo.reset()  # of an earlier model, or for another device
    with inductor(device):
        yield


def compile_blocks(job: Job, model: Any) -> None:
    """As the runtime does."""
    from axoc_runtime.kernels import compiled

    compiled.compile_blocks(job, model)
    for block in decoder_blocks(job, model):
        block.forward = alone(block.forward)


def alone(forward: Any) -> Any:
    """Without CudaAutocast, which Dynamo would look into: graphs are traced under one of their own (inductor.py)."""
    from torch._dynamo.exc import TorchDynamoException

    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            with _pop_mode_temporarily():
                return forward(*args, **kwargs)
        except TorchDynamoException as error:
            why = next(iter(str(error).strip().splitlines()), type(error).__name__)
            message = f"torch cannot compile the blocks of this model: {why}"
            raise RuntimeFailure(message, EXIT_INPUTS, "set model.compile: false") from None

    return run
