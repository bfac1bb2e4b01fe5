"""TrainingArguments of a job: every value comes from job.json."""

from __future__ import annotations

import os
from typing import Any

from transformers import TrainingArguments

from axoc_runtime.job import Job
from axoc_runtime.kernels import liger_arguments
from axoc_runtime.objectives.registry import objective_of
from axoc_runtime.strategies import precision_arguments, strategy_arguments


def training_arguments(job: Job, *, evaluates: bool) -> TrainingArguments:
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(job.output / "tensorboard")
    training = job.training
    kind, own = objective_of(job).arguments(job)
    return kind(
        output_dir=str(job.output),
        use_cpu=job.distributed.device == "cpu",
        per_device_train_batch_size=training.micro_batch_size,
        per_device_eval_batch_size=training.micro_batch_size,
        gradient_accumulation_steps=training.gradient_accumulation_steps,
        optim=training.optimizer,
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.lr_scheduler,
        warmup_steps=training.warmup_ratio,  # transformers 5 reads a value below one as a ratio
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        seed=training.seed,
        data_seed=training.seed,
        logging_steps=training.logging_steps,
        logging_first_step=True,
        **liger_arguments(job),
        remove_unused_columns=False,
        disable_tqdm=True,  # our own progress bar
        **quiet_arguments(job),
        ddp_timeout=3600,
        dataloader_pin_memory=job.distributed.device != "cpu",
        report_to=list(job.tracking) or "none",
        run_name=job.name,
        **_length(job),
        **_schedule(job, evaluates=evaluates),
        **own,
        **precision_arguments(job),
        **strategy_arguments(job),
    )


def quiet_arguments(job: Job) -> dict[str, str]:
    """The Trainer sets transformers' verbosity anew when it is made."""
    level = "info" if job.logging_level.upper() == "DEBUG" else "error"
    return {"log_level": level, "log_level_replica": level}


def _length(job: Job) -> dict[str, Any]:
    if job.training.max_steps is not None:
        return {"max_steps": job.training.max_steps}
    return {"num_train_epochs": job.training.epochs if job.training.epochs is not None else 1.0}


def _schedule(job: Job, *, evaluates: bool) -> dict[str, Any]:
    """Evaluation and checkpoints by steps, or at each epoch's end. Early stopping needs the two together."""
    training = job.training
    save = (
        {"save_strategy": "steps", "save_steps": training.save_steps}
        if training.save_steps
        else {"save_strategy": "epoch"}
    )
    if not evaluates:
        return {**save, "eval_strategy": "no"}
    steps = training.eval_steps
    evaluation = {"eval_strategy": "steps", "eval_steps": steps} if steps else {"eval_strategy": "epoch"}
    metric, greater = objective_of(job).best
    best = {"load_best_model_at_end": True, "metric_for_best_model": metric, "greater_is_better": greater}
    return {**save, **evaluation, **(best if training.early_stopping_patience is not None else {})}
