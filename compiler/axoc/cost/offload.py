"""Host bytes of one rank for what offloading keeps there, read from DeepSpeed 0.19.8 and torch's FSDP2.

Pinned memory comes from torch's caching host allocator, which rounds every request up to a power of two and gives nothing
back (ATen/core/CachingHostAllocator.h): a flat buffer of 18 GB takes 34 GB.
"""

from __future__ import annotations

from typing import Final, cast

import numpy as np

from axoc.cost import states
from axoc.cost.columns import Bools, Columns, Floats
from axoc.cost.scenario import Scenario

SUB_GROUP_ELEMENTS: Final = 1_000_000_000
"""DeepSpeed's sub_group_size, which the bundle writes: ZeRO-3 steps through a rank's partition in such pieces."""


def pinned(num_bytes: Floats) -> Floats:
    """What a pinned request really takes: the next power of two."""
    return cast(Floats, np.where(num_bytes > 0, 2.0 ** np.ceil(np.log2(np.maximum(num_bytes, 1.0))), 0.0))


def offloaded(scenario: Scenario, c: Columns) -> dict[str, Floats]:
    """By item. All zero where nothing is offloaded, and on a CPU, where there is nowhere to offload to."""
    share = scenario.trainable / (c.tensor_parallel * c.optimizer_shards)
    low = np.where(states.keeps_bf16_module(scenario, c) > 0, 2.0, float(scenario.trainable_bytes))
    found = {
        "offloaded masters": _masters(c, share),
        "offloaded optimizer states": share * _state_bytes(scenario, c),
        "offloaded gradients": _gradients(scenario, c, share, low),
        "offloaded parameters": _parameters(scenario, c, share, low),
    }
    return {item: np.where(_offloads(scenario, c), v, 0.0) for item, v in found.items()}


def copied_while_pinning_bytes(scenario: Scenario, c: Columns) -> Floats:
    """Of one rank, when all else is there: ZeRO-3 makes its flat gradient partition unpinned, then copies it (stage3.py)."""
    low = np.where(states.keeps_bf16_module(scenario, c) > 0, 2.0, float(scenario.trainable_bytes))
    flat = low * scenario.trainable / (c.tensor_parallel * c.optimizer_shards)
    return np.where(_offloads(scenario, c) & c.uses("zero3"), flat, 0.0)


def _offloads(scenario: Scenario, c: Columns) -> Bools:
    """On a CPU there is nowhere to offload to."""
    return c.offloads_optimizer & (not scenario.on_cpu)


def _state_bytes(scenario: Scenario, c: Columns) -> Floats:
    """torch's optimizer makes its states beside the fp32 partition it is given; FSDP2's are of the sharded weights."""
    return np.where(c.deepspeed, scenario.optimizer_bytes_of_masters, scenario.optimizer_bytes)


def _masters(c: Columns, share: Floats) -> Floats:
    """ZeRO-1/2 pin their fp32 partition (stage_1_and_2.py), ZeRO-3 does not; FSDP2 has none beside its weights."""
    zero12 = pinned(4.0 * share)
    return np.where(c.uses("zero1", "zero2"), zero12, np.where(c.uses("zero3"), 4.0 * share, 0.0))


def _gradients(scenario: Scenario, c: Columns, share: Floats, low: Floats) -> Floats:
    """fp32 gradients of the step, pinned; what is accumulated; ZeRO-3's flat partition in the module's dtype."""
    whole = np.floor(share / SUB_GROUP_ELEMENTS)
    rest = share - whole * SUB_GROUP_ELEMENTS
    step = whole * pinned(np.full(len(c), 4.0 * SUB_GROUP_ELEMENTS)) + pinned(4.0 * rest)
    zero3 = step + pinned(low * share)
    # a pinned buffer for each parameter of the partition, once there is more than one micro-step
    accumulated = np.where(c.accumulation > 1, low * share * scenario.sizes.pinned_ratio, 0.0)
    zero12 = pinned(4.0 * share) + accumulated
    fsdp = float(scenario.trainable_bytes) * share
    return np.where(c.uses("zero1", "zero2"), zero12, np.where(c.uses("zero3"), zero3, fsdp))


def _parameters(scenario: Scenario, c: Columns, share: Floats, low: Floats) -> Floats:
    """ZeRO-1/2 pin a copy of the partition in the module's dtype. ZeRO-3 and FSDP2 pin the partition of each parameter;
    ZeRO-3 then moves those that are trained into one flat pinned buffer, and the allocator keeps the old blocks."""
    linear, rest = states.base_bytes(scenario)
    shrink = np.where(c.deepspeed & (states.keeps_bf16_module(scenario, c) > 0), 2.0 / scenario.weight_bytes, 1.0)
    each = (linear + rest) * shrink / (c.tensor_parallel * c.weight_shards) * scenario.sizes.pinned_ratio
    sharded = each + np.where(c.uses("zero3"), pinned(low * share), 0.0)
    return np.where(c.uses("zero1", "zero2"), pinned(low * share), np.where(c.offloads_parameters, sharded, 0.0))
