"""LoRA+ (arXiv 2402.12354): an adapter's second matrix learns faster than its first."""

from __future__ import annotations

from typing import Any

from axoc_runtime.job import Job


def two_rates(job: Job, trainer: Any) -> Any:
    """The optimizer of the plan, with PEFT's groups. Empty ones are left out: DeepSpeed flattens each into one tensor."""
    from peft.optimizers import create_loraplus_optimizer

    assert job.adapter is not None
    kind, options = trainer.get_optimizer_cls_and_kwargs(trainer.args, trainer.model)
    rate = options.pop("lr", job.training.learning_rate)
    optimizer: Any = create_loraplus_optimizer(
        trainer.model,
        kind,
        lr=rate,
        loraplus_lr_ratio=job.adapter.loraplus_lr_ratio,
        loraplus_weight_decay=job.training.weight_decay,
        **options,
    )
    optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
    return optimizer
