"""Seconds of collectives and host copies, and how much of them the backward hides.

Ring collectives: (n - 1) / n of the bytes once for gather and scatter, twice for all-reduce (Thakur et al. 2005,
https://doi.org/10.1177/1094342005051521). Across nodes the slowest hop carries the ring.
"""

from __future__ import annotations

from typing import Final, cast

import numpy as np

from axoc.cost import flops, lengths, states
from axoc.cost.columns import Columns, Floats
from axoc.cost.mesh import LATENCY_SECONDS, Axis, replicate_axis, ring_rate, shard_axis, tensor_axis
from axoc.cost.scenario import Scenario
from axoc.cost.units import blocks_per_unit

HIDDEN_SHARE: Final = 0.8
"""Of the backward that can hide a bucketed collective: the last bucket and the first gather stay exposed."""
HOST_LINK_BYTES_PER_SECOND: Final = 20e9
"""Pinned copies over PCIe 4 x16, as measured by most bandwidth tests."""


def _ring(scenario: Scenario, num_bytes: Floats, axis: Axis, times: float, calls: Floats | float) -> Floats:
    ranks = axis.ranks
    seconds = times * num_bytes * (ranks - 1) / np.maximum(ranks, 1) / ring_rate(scenario, axis)
    return cast(Floats, np.where(ranks > 1, seconds + calls * LATENCY_SECONDS * np.log2(np.maximum(ranks, 2)), 0.0))


def _trained_bytes(scenario: Scenario, c: Columns) -> Floats:
    per_parameter = np.where(c.deepspeed | c.uses("fsdp"), 2.0, float(scenario.trainable_bytes))
    return cast(Floats, scenario.trainable * per_parameter / c.tensor_parallel)


def _weight_bytes(scenario: Scenario, c: Columns) -> Floats:
    linear, rest = states.base_bytes(scenario)
    if not scenario.quantized:
        linear, rest = (x * scenario.compute_bytes / scenario.weight_bytes for x in (linear, rest))
    return cast(Floats, (linear + rest) / c.tensor_parallel)


def micro_step_seconds(scenario: Scenario, c: Columns) -> Floats:
    """Collectives of every micro-step: gathers of sharded weights, scatters of gradients (ZeRO-2 and up), and under hybrid
    shard all-reduces of the scattered part, which the runtime does not put off to a step's last micro-step either."""
    axis = shard_axis(c)
    layers = float(scenario.model.num_layers)
    calls = np.where(c.uses("fsdp"), np.ceil(layers / blocks_per_unit(scenario, c)), layers)
    passes = 2.0 + np.where(c.checkpointed_layers > 0, 1.0, 0.0) * np.where(c.uses("zero3"), 1.0, 0.0)
    gather = _ring(scenario, _weight_bytes(scenario, c), axis, 1.0, calls) * passes
    scatter = _ring(scenario, _trained_bytes(scenario, c), axis, 1.0, calls)
    part = _trained_bytes(scenario, c) / c.shard_degree
    reduce = _ring(scenario, part, replicate_axis(c), 2.0, calls)
    sharded = c.uses("fsdp", "zero3")
    return cast(Floats, np.where(sharded, gather + scatter + reduce, 0.0) + np.where(c.uses("zero2"), scatter, 0.0))


def forward_gather_seconds(scenario: Scenario, c: Columns) -> Floats:
    """Gathers of one forward alone, as in evaluation; nothing where every rank has all weights."""
    gather = _ring(scenario, _weight_bytes(scenario, c), shard_axis(c), 1.0, float(scenario.model.num_layers))
    return cast(Floats, np.where(c.uses("fsdp", "zero3"), gather, 0.0))


def step_seconds(scenario: Scenario, c: Columns) -> Floats:
    """Collectives once a step: all-reduce of gradients (DDP, ZeRO-1), gather of updated weights (ZeRO-1/2)."""
    axis = shard_axis(c)
    reduce = _ring(scenario, _trained_bytes(scenario, c), axis, 2.0, 25.0)
    gather = _ring(scenario, _trained_bytes(scenario, c), axis, 1.0, 25.0)
    total = np.where(c.uses("ddp"), reduce, 0.0) + np.where(c.uses("zero1"), reduce * 0.5 + gather, 0.0)
    return cast(Floats, total + np.where(c.uses("zero2"), gather, 0.0))


def tensor_parallel_seconds(scenario: Scenario, c: Columns) -> Floats:
    """Two all-reduces a block forward, two back, and two more where the block is recomputed: nothing hides them."""
    num_bytes = scenario.by_variant(c, lengths.micro_batch_tokens) * scenario.model.hidden_size * scenario.compute_bytes
    times = 2.0 * scenario.model.num_layers * (2 + flops.recomputed_share(scenario, c))
    return cast(Floats, times * _ring(scenario, num_bytes, tensor_axis(c), 2.0, 1.0))


def offload_seconds(scenario: Scenario, c: Columns) -> tuple[Floats, Floats]:
    """(each micro-step, each step): DeepSpeed moves gradients down and weights up once a step, offloaded parameters up
    twice a micro-step. FSDP2 moves a shard up, in its own dtype, for each of two gathers, and each reduced gradient down
    (torch/distributed/fsdp/_fully_shard: all_gather_inputs, foreach_reduce)."""
    trained = _trained_bytes(scenario, c) / c.optimizer_shards
    weights = _weight_bytes(scenario, c) / c.weight_shards
    part = c.tensor_parallel * c.weight_shards
    moved = (2.0 * sum(states.base_bytes(scenario)) + states.trained_bytes(scenario)) / part
    fsdp = c.uses("fsdp")
    each_step = np.where(c.offloads_optimizer & ~fsdp, 2.0 * trained, 0.0)
    each_micro = np.where(c.offloads_parameters, np.where(fsdp, moved, 2.0 * weights), 0.0)
    return cast(Floats, each_micro / HOST_LINK_BYTES_PER_SECOND), cast(Floats, each_step / HOST_LINK_BYTES_PER_SECOND)
