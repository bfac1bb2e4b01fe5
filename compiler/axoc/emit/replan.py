"""What training is, apart from the hardware it runs on: equal digests train the same, whatever was planned around them."""

from __future__ import annotations

import math
from typing import Any

from axoc.ir.canonical import digest, dumps, to_plain
from axoc.ir.plan import Plan
from axoc.ir.request import AUTO


def training_contract(plan: Plan) -> dict[str, Any]:
    """Global batch, steps and schedules, the digest of the learning rate's schedule, and the digest of all of it."""
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
        "lr_schedule_digest": digest(dumps(rate).encode()),
    }
    return contract | {"digest": digest(dumps(contract).encode()), "global_batch_is_set": batch_is_set(plan)}


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
