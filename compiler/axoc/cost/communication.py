"""Seconds of a step's collectives and host copies, one by one; which of them computing hides, overlap.py says.

Sources: torch 2.11, distributed/fsdp/_fully_shard (_fsdp_param_group.py, _fsdp_collectives.py); deepspeed 0.19.8,
runtime/zero (stage_1_and_2.py, stage3.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

import numpy as np

from axoc.cost import flops, lengths, split, states, uneven
from axoc.cost.buckets import GATHER_ELEMENTS, reduce_bucket_elements
from axoc.cost.columns import Columns, Floats
from axoc.cost.kernels import kernels_of
from axoc.cost.mesh import Axis, replicate_axis, shard_axis, tensor_axis
from axoc.cost.rings import all_reduce_seconds, gather_seconds
from axoc.cost.scenario import Scenario
from axoc.cost.units import blocks_per_unit

HOST_LINK_BYTES_PER_SECOND: Final = 20e9
"""Pinned copies over PCIe 4 x16, as measured by most bandwidth tests."""
MATRICES_A_BLOCK: Final = 7
"""Query, key, value, output, gate, up, down."""
DDP_BUCKET_BYTES: Final = 25 * 2**20
"""torch's default (DistributedDataParallel, bucket_cap_mb)."""

Collective = Callable[[Scenario, Floats, Axis], Floats]


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Of blocks that are gathered and reduced together: seconds of each of its collectives."""

    count: Floats
    gather: Floats
    reduce: Floats
    """Scatter of sums, and under hybrid shard the sum over copies."""
    outside_gather: Floats
    """Of embedding and head, as one."""
    outside_reduce: Floats

    @property
    def seconds(self) -> Floats:
        """Of all gathers and reductions of a micro-step: weights are gathered for the forward and again for the backward."""
        outside = 2.0 * self.outside_gather + self.outside_reduce
        return cast(Floats, self.count * (2.0 * self.gather + self.reduce) + outside)


def unit(scenario: Scenario, c: Columns) -> Unit:
    """Under FSDP and ZeRO-3; nothing elsewhere. A tensor-parallel rank gathers and reduces what it has of each weight: parts
    of the matrices in blocks and of the head, the whole of norms and of an untied embedding (split.py)."""
    sharded, layers = c.uses("fsdp", "zero3"), float(scenario.model.num_layers)
    count = np.where(c.uses("fsdp"), np.ceil(layers / blocks_per_unit(scenario, c)), layers)
    inside, outside = split.blocks(scenario, c), 1.0 - split.blocks(scenario, c)
    padded = uneven.of_blocks(scenario, c)
    weights, gradients = gathered_bytes(scenario, c) * padded, _trained_bytes(scenario, c) * padded
    axis, (gathers, reductions) = shard_axis(c), _parts(scenario, c)

    def only(seconds: Floats) -> Floats:
        return cast(Floats, np.where(sharded, seconds, 0.0))

    return Unit(
        count=count,
        gather=only(gathers * gather_seconds(scenario, weights * inside / count / gathers, axis)),
        reduce=only(reductions * _reduced(scenario, c, gradients * inside / count / reductions)),
        outside_gather=only(gather_seconds(scenario, weights * outside, axis)),
        outside_reduce=only(_reduced(scenario, c, gradients * outside)),
    )


def _parts(scenario: Scenario, c: Columns) -> tuple[Floats, Floats]:
    """(gathers, reductions) of a block under ZeRO-3, which fetches modules until a prefetch bucket is full, a matrix never in
    parts, and reduces when its reduce bucket is full; one each elsewhere."""
    block = float(scenario.sizes.block)
    fetched = min(float(MATRICES_A_BLOCK), np.ceil(block / GATHER_ELEMENTS))
    reduced = np.ceil(block / reduce_bucket_elements(scenario.model.hidden_size))
    three = c.uses("zero3")
    return np.where(three, max(1.0, fetched), 1.0), np.where(three, max(1.0, reduced), 1.0)


def gathered_bytes(scenario: Scenario, c: Columns) -> Floats:
    """Of a tensor-parallel rank's weights as they are gathered."""
    linear, rest = states.base_bytes(scenario)
    if not scenario.quantized:
        linear, rest = (x * scenario.compute_bytes / scenario.weight_bytes for x in (linear, rest))
    return cast(Floats, (linear + rest) * split.share(scenario, c))


def micro_step_seconds(scenario: Scenario, c: Columns) -> Floats:
    """Collectives of every micro-step: gathers of sharded weights, scatters of gradients (ZeRO-2 and up), and under hybrid
    shard all-reduces of the scattered part, which the runtime does not put off to a step's last micro-step either."""
    scatter = _bucketed(scenario, c, gather_seconds, _zero_bucket_bytes(scenario))
    return cast(Floats, unit(scenario, c).seconds + np.where(c.uses("zero2"), scatter, 0.0))


def gradient_reduction_seconds(scenario: Scenario, c: Columns) -> Floats:
    """Once a step: DDP's sum of all gradients, ZeRO-1's scatter of sums."""
    summed = _bucketed(scenario, c, all_reduce_seconds, DDP_BUCKET_BYTES)
    scattered = _bucketed(scenario, c, gather_seconds, _zero_bucket_bytes(scenario))
    return cast(Floats, np.where(c.uses("ddp"), summed, 0.0) + np.where(c.uses("zero1"), scattered, 0.0))


def last_bucket_seconds(scenario: Scenario, c: Columns) -> Floats:
    """Of DDP's: it is full when the backward ends."""
    size = np.minimum(DDP_BUCKET_BYTES, _trained_bytes(scenario, c))
    return cast(Floats, np.where(c.uses("ddp"), all_reduce_seconds(scenario, size, shard_axis(c)), 0.0))


def weight_gather_seconds(scenario: Scenario, c: Columns) -> Floats:
    """ZeRO-1 and 2 gather the updated weights at the end of each step, and wait for them (stage_1_and_2.py, step)."""
    gather = _bucketed(scenario, c, gather_seconds, GATHER_ELEMENTS * states.module_bytes(scenario))
    return cast(Floats, np.where(c.uses("zero1", "zero2"), gather, 0.0))


def copied_seconds(scenario: Scenario, c: Columns) -> tuple[Floats, Floats]:
    """(forward, backward): FSDP copies each unit's weights out of their gather's flat output, and its gradients into the
    flat input of their reduction (foreach_all_gather_copy_out, chunk_cat), on the stream that computes or in its way. ZeRO-3
    copies weights likewise (partition_parameters.py, AllGatherCoalescedHandle.wait); its gradients are in time.py."""
    several = c.shard_degree > 1
    copies, copies_back = c.uses("fsdp", "zero3") & several, c.uses("fsdp") & several
    padded = uneven.of_blocks(scenario, c)
    weights, gradients = gathered_bytes(scenario, c) * padded, _trained_bytes(scenario, c) * padded
    kernels = kernels_of(scenario)
    out, into = kernels.moved(2.0 * weights), kernels.moved(2.0 * gradients)
    return cast(Floats, np.where(copies, out, 0.0)), np.where(copies, out, 0.0) + np.where(copies_back, into, 0.0)


def tensor_parallel_seconds(scenario: Scenario, c: Columns) -> Floats:
    """Two all-reduces a block forward, two back, and two more where the block is recomputed: nothing hides them."""
    num_bytes = scenario.by_variant(c, lengths.micro_batch_tokens) * scenario.model.hidden_size * scenario.compute_bytes
    times = 2.0 * scenario.model.num_layers * (2 + flops.recomputed_share(scenario, c))
    return cast(Floats, times * all_reduce_seconds(scenario, num_bytes, tensor_axis(c)))


def offload_seconds(scenario: Scenario, c: Columns) -> tuple[Floats, Floats]:
    """(each micro-step, each step): DeepSpeed moves gradients down and weights up once a step, offloaded parameters up
    twice a micro-step. FSDP2 moves a shard up, in its own dtype, for each of two gathers, and each reduced gradient down
    (torch/distributed/fsdp/_fully_shard: all_gather_inputs, foreach_reduce)."""
    trained = _trained_bytes(scenario, c) / c.optimizer_shards
    weights = gathered_bytes(scenario, c) / c.weight_shards
    whole = 2.0 * sum(states.base_bytes(scenario)) + states.trained_bytes(scenario)
    moved = whole * split.share(scenario, c) / c.weight_shards
    fsdp = c.uses("fsdp")
    each_step = np.where(c.offloads_optimizer & ~fsdp, 2.0 * trained, 0.0)
    each_micro = np.where(c.offloads_parameters, np.where(fsdp, moved, 2.0 * weights), 0.0)
    return cast(Floats, each_micro / HOST_LINK_BYTES_PER_SECOND), cast(Floats, each_step / HOST_LINK_BYTES_PER_SECOND)


def _trained_bytes(scenario: Scenario, c: Columns) -> Floats:
    """Of a tensor-parallel rank's gradients as they are sent. Adapters are whole on all of them."""
    per_parameter = np.where(c.deepspeed | c.uses("fsdp"), 2.0, float(scenario.trainable_bytes))
    part = split.share(scenario, c) if scenario.is_full else np.ones(len(c))
    return cast(Floats, scenario.trainable * per_parameter * part)


def _reduced(scenario: Scenario, c: Columns, num_bytes: Floats) -> Floats:
    """Scattered sums within a copy, then each part's sum over the copies: under hybrid shard the two levels of a
    hierarchical all-reduce, the first inside a node and the second between nodes."""
    scatter = gather_seconds(scenario, num_bytes, shard_axis(c))
    return scatter + all_reduce_seconds(scenario, num_bytes / c.shard_degree, replicate_axis(c))


def _zero_bucket_bytes(scenario: Scenario) -> float:
    return reduce_bucket_elements(scenario.model.hidden_size) * states.module_bytes(scenario)


def _bucketed(scenario: Scenario, c: Columns, collective: Collective, bucket_bytes: float) -> Floats:
    """Gradients in buckets of that size, each a collective of its own."""
    whole = _trained_bytes(scenario, c)
    times = np.maximum(1.0, np.ceil(whole / bucket_bytes))
    return cast(Floats, times * collective(scenario, whole / times, shard_axis(c)))
