"""Which attention function of transformers a job means."""

from __future__ import annotations

from axoc_runtime.attention.backends import BACKENDS, installed
from axoc_runtime.errors import EXIT_INPUTS, RuntimeFailure
from axoc_runtime.job import Job


def implementation_of(job: Job) -> str:
    """transformers' name for it; ours are made known there first. Raises RuntimeFailure where this machine cannot run it."""
    backend = BACKENDS.get(job.model.attention)
    if backend is None:
        fix = f"set model.attention to one of {', '.join(BACKENDS)} and plan again"
        raise RuntimeFailure(f"this runtime knows no attention {job.model.attention!r}", EXIT_INPUTS, fix)
    if backend.name == "varlen":  # which falls back, and says so
        register_varlen()
        return backend.implementation
    if backend.package is not None and not installed(backend.package):
        message = f"attention {backend.name} needs the package {backend.package}, which is not installed"
        raise RuntimeFailure(message, EXIT_INPUTS, "install it, or set model.attention: varlen and plan again")
    if backend.capability is not None and job.distributed.device == "cpu":
        message = f"attention {backend.name} needs a CUDA device to train on"
        raise RuntimeFailure(message, EXIT_INPUTS, "set model.attention: sdpa and plan again")
    if backend.name == "flash_attention_4":
        register_varlen()
    return backend.implementation


def register_varlen() -> None:
    """Both functions that take documents by their boundaries."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    from axoc_runtime.attention.varlen import flash_4_attention, varlen_attention, varlen_mask

    for name, function in (("varlen", varlen_attention), ("flash_attention_4", flash_4_attention)):
        AttentionInterface.register(BACKENDS[name].implementation, function)
        AttentionMaskInterface.register(BACKENDS[name].implementation, varlen_mask)
