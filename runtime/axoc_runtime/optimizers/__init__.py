"""Optimizers that neither torch nor transformers has."""

from __future__ import annotations

from typing import Any

from axoc_runtime.job import Job


def own_optimizer(job: Job) -> dict[str, Any]:
    """Arguments of a Trainer: the class it is to make its optimizer of, where it is none that it knows by name."""
    if job.training.bf16_update != "stochastic":
        return {}
    from axoc_runtime.optimizers.stochastic_adamw import StochasticAdamW

    compiled = job.distributed.device == "cuda"
    options = {"lr": job.training.learning_rate, "compiled": compiled, "seed": job.training.seed}
    return {"optimizer_cls_and_kwargs": (StochasticAdamW, options)}
