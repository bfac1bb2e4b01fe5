"""What training is, apart from the hardware it runs on: equal digests train the same, whatever was planned around them."""

from __future__ import annotations

import math
from typing import Any, Final

from axoc.ir.canonical import digest, dumps, to_plain
from axoc.ir.facts import DataFacts
from axoc.ir.plan import Plan
from axoc.ir.request import AUTO, DatasetRequest

NO_TRAINING: Final = ("max_seq_length", "packing", "mean_tokens")
"""Of a dataset: told by the contract itself, or only an estimate."""


def training_contract(plan: Plan) -> dict[str, Any]:
    """Model, data, objective, global batch, steps and schedules, the digest of the learning rate's schedule, and the digest of
    all of it."""
    schedule, training = plan.schedule, plan.request.training
    steps = schedule.total_steps
    rate = {
        "learning_rate": training.learning_rate,
        "lr_scheduler": training.lr_scheduler,
        "warmup_ratio": training.warmup_ratio,
        "warmup_steps": None if steps is None else warmup_steps(training.warmup_ratio, steps),
        "total_steps": steps,
        "epochs": training.epochs if steps is None else None,
    }
    contract = {
        "global_batch_size": plan.chosen.candidate.global_batch_size,
        "sequence_length": plan.request.max_seq_length,
        "packing": plan.chosen.candidate.packing,
        "total_steps": steps,
        "warmup_steps": rate["warmup_steps"],
        "eval_steps": schedule.eval_steps,
        "save_steps": schedule.save_steps,
        "optimizer": plan.chosen.candidate.optimizer,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "seed": training.seed,
        "adapter": to_plain(plan.request.adapter),
        "model": _model(plan),
        "data": [_data(d, facts) for d, facts in zip(plan.request.datasets, plan.data, strict=False)],
        "objective": training.objective,
        "preference": to_plain(training.preference),
        "grpo": to_plain(training.grpo),
        "bf16_update": training.bf16_update,
        "early_stopping_patience": training.early_stopping_patience,
        "lr_schedule_digest": digest(dumps(rate).encode()),
    }
    return contract | {"digest": digest(dumps(contract).encode()), "global_batch_is_set": batch_is_set(plan)}


def _model(plan: Plan) -> dict[str, Any]:
    """What begins, and the types it is kept and computed in."""
    model = plan.request.model
    return {
        "id": model.id,
        "revision": model.revision,
        "dtype": model.dtype,
        "quantization": plan.chosen.candidate.quantization,
        "mixed_precision": plan.request.distributed.mixed_precision,
        "tokenizer": to_plain(model.tokenizer),
    }


def _data(wanted: DatasetRequest, facts: DataFacts) -> dict[str, Any]:
    """The rows, and what becomes of them. The same content is the same data, wherever it lies."""
    made = {k: v for k, v in to_plain(wanted).items() if k not in NO_TRAINING}
    return made if facts.sha256 is None else {k: v for k, v in made.items() if k != "path"} | {"sha256": facts.sha256}


def warmup_steps(ratio: float, steps: int) -> int:
    """As transformers' TrainingArguments.get_warmup_steps: a ratio's steps are rounded up."""
    return math.ceil(steps * ratio)


def batch_is_set(plan: Plan) -> bool:
    """False: the default, which other hardware keeps only where its ranks divide it (docs/decisions/0005)."""
    training = plan.request.training
    return training.global_batch_size != AUTO


def contract_sentence(plan: Plan) -> str:
    """For people: plans with the same contract train the same."""
    contract = training_contract(plan)
    total, steps = contract["global_batch_size"], contract["total_steps"]
    short = contract["digest"].removeprefix("sha256:")[:12]
    packed = " of packed rows" if contract["packing"] else ""
    what = f"{total} sequences{packed} a step" + (
        "" if steps is None else f", {steps:,} steps, {contract['warmup_steps']:,} of warm-up"
    )
    return f"{what} (contract {short})"
