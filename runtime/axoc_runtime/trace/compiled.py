"""Compiled blocks: Dynamo, AOTAutograd and Inductor are torch's own, and so is what a compiled block saves and holds."""

from __future__ import annotations

import gc
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

    not_compiled()
    with inductor(device, alike=all(d.packing for d in job.datasets)):
        yield


def not_compiled() -> None:
    """What counts is no part of what is counted. Of a block that becomes several graphs Dynamo looks at the Python that is called
    between them, and a storage that dies there calls these functions: it would compile them, each for every length of its
    dictionaries, and give up at its limit of eight, on blocks too. What a graph itself calls it leaves alone. So blocks of one
    graph have no need of this: full and LoRA, with dropout, over four-bit weights, under DDP and FSDP2."""
    from torch._C._dynamo.eval_frame import _FrameAction, _FrameExecStrategy, set_code_exec_strategy

    from axoc_runtime.trace.cuda_as_cpu import CudaAutocast
    from axoc_runtime.trace.liveness import Liveness
    from axoc_runtime.trace.remembered import RememberingMode

    counts: tuple[Any, ...] = (
        Liveness.__torch_dispatch__,
        Liveness._gone,
        RememberingMode.__torch_dispatch__,
        CudaAutocast.__torch_function__,
    )
    for function in counts:
        set_code_exec_strategy(function.__code__, _FrameExecStrategy(_FrameAction.SKIP, _FrameAction.SKIP))


def forget_compiled(job: Job) -> None:
    """What was compiled for another job or device. The depths of one job share it: a block's code does not depend on how many
    there are."""
    if job.model.compile:
        torch._dynamo.reset()


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
            with _pop_mode_temporarily(), uncollected():
                return forward(*args, **kwargs)
        except TorchDynamoException as error:
            why = next(iter(str(error).strip().splitlines()), type(error).__name__)
            message = f"torch cannot compile the blocks of this model: {why}"
            raise RuntimeFailure(message, EXIT_INPUTS, "set model.compile: false") from None

    return run


@contextmanager
def uncollected() -> Iterator[None]:
    """A compiler makes millions of objects, of which next to none are garbage yet: looking for it takes a tenth of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
