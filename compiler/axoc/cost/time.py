"""Seconds of one optimizer step, by part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np

from axoc.cost import communication, flops, kernels
from axoc.cost.columns import Columns, Floats
from axoc.cost.scenario import Scenario


@dataclass(frozen=True, kw_only=True)
class TimeColumns:
    step_seconds: Floats
    breakdown: dict[str, Floats]
    """Parts that add up to the step."""
    tokens_per_second: Floats
    """Of the whole job, batches taken full."""
    mfu: Floats


def step_time(scenario: Scenario, c: Columns) -> TimeColumns:
    parts = _micro_step(scenario, c)
    busy = cast(Floats, sum(parts.values()))
    launches = kernels.launch_seconds(scenario, c)
    breakdown = {name: seconds * c.accumulation for name, seconds in parts.items()}
    breakdown["waiting for launches"] = np.maximum(0.0, launches - busy) * c.accumulation
    compute = cast(Floats, np.maximum(busy, launches))
    breakdown |= _communication(scenario, c, compute)
    breakdown["optimizer"] = kernels.optimizer_seconds(scenario, c)
    step = cast(Floats, sum(breakdown.values()))
    tokens = flops.tokens(scenario, c) * c.accumulation * c.data_parallel
    useful = flops.model_flops(scenario, c) * c.accumulation
    return TimeColumns(
        step_seconds=step,
        breakdown=breakdown,
        tokens_per_second=tokens / step,
        mfu=useful / (step * kernels.dense_rate(scenario)),
    )


def _micro_step(scenario: Scenario, c: Columns) -> dict[str, Floats]:
    return {
        "matrix products": kernels.matmul_seconds(scenario, c),
        "attention": kernels.attention_seconds(scenario, c),
        "memory-bound kernels": kernels.elementwise_seconds(scenario, c),
        "weight casts and gradient sums": kernels.weight_cast_seconds(scenario, c),
        "loss": kernels.loss_seconds(scenario, c),
        "dequantization": kernels.dequantization_seconds(scenario, c),
    }


def _communication(scenario: Scenario, c: Columns, compute: Floats) -> dict[str, Floats]:
    """What the backward does not hide. Tensor parallelism and offloading wait for their copies."""
    micro = communication.micro_step_seconds(scenario, c)
    once = communication.step_seconds(scenario, c)
    room = compute * communication.HIDDEN_SHARE
    exposed_micro = np.maximum(micro - room, micro * (1 - communication.HIDDEN_SHARE))
    backward = room * 2 / 3
    exposed_once = np.maximum(once - backward, once * (1 - communication.HIDDEN_SHARE))
    each_micro, each_step = communication.offload_seconds(scenario, c)
    return {
        "exposed communication": cast(Floats, exposed_micro * c.accumulation + exposed_once),
        "tensor-parallel communication": communication.tensor_parallel_seconds(scenario, c) * c.accumulation,
        "host copies": each_micro * c.accumulation + each_step,
    }
