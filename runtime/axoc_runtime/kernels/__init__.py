"""What is put in the place of a model's own computation: its loss, float8 products, and its blocks compiled."""

from __future__ import annotations

from typing import Any, Final

from axoc_runtime.job import Job

LOSS_ALONE: Final = {
    "rope": False,
    "rms_norm": False,
    "swiglu": False,
    "geglu": False,
    "fused_linear_cross_entropy": True,
}
"""Liger's fused loss and nothing else."""


def put_kernels(job: Job, model: Any) -> None:
    """Before a Trainer is made of the model. Liger's kernels are put there by the Trainer itself."""
    if job.model.kernels == "chunked":
        from axoc_runtime.kernels.head import use_chunked_loss

        use_chunked_loss(job, model)
    if job.distributed.mixed_precision == "fp8":
        from axoc_runtime.kernels.float8 import use_float8

        use_float8(job, model)
    if job.model.compile:
        from axoc_runtime.kernels.compiled import compile_blocks

        compile_blocks(job, model)


def liger_arguments(job: Job) -> dict[str, Any]:
    """Of TrainingArguments. What compiled blocks fuse themselves, over more than Liger's kernels span, is left to them."""
    if job.model.kernels != "liger":
        return {}
    return {"use_liger_kernel": True, "liger_kernel_config": LOSS_ALONE if job.model.compile else None}
