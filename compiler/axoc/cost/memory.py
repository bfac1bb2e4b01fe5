"""Peak memory by phase: persistent bytes plus the maximum over phases, never one sum of everything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

import numpy as np

from axoc.cost import flops, sight, states
from axoc.cost.columns import Columns, Floats
from axoc.cost.disk import disk
from axoc.cost.host import CPU_LIBRARY_BYTES, CPU_PROCESS_BYTES, HostColumns, host_memory
from axoc.cost.ledger import ledgers
from axoc.cost.live import ITEMS
from axoc.cost.scenario import Scenario
from axoc.units import MIB

NCCL_BYTES: Final = 952 * MIB
"""Communicators' device buffers: driver-used minus reserved was 1.68 GiB with NCCL up and 0.75 GiB without."""
GROWTH_BYTES: Final = 20 * MIB
"""Expandable segments map large blocks in pages of 20 MiB (c10/cuda/CUDACachingAllocator.cpp, kLargeBuffer)."""


@dataclass(frozen=True, kw_only=True)
class MemoryColumns:
    """Bytes of the fullest rank, one row a candidate."""

    allocated: Floats
    reserved: Floats
    device_used: Floats
    host: HostColumns
    """Of the fullest node."""
    disk: dict[str, Floats]
    """Of the fullest node, by item."""
    phase: Floats
    """Index into ``phases`` of the peak."""
    phases: dict[str, Floats]
    """In the order of a step; those of the objective last."""
    ledgers: dict[str, dict[str, Floats]]
    """Live bytes by phase and item."""


def memory(scenario: Scenario, c: Columns) -> MemoryColumns:
    """Closed form over all candidates at once."""
    by_phase = sight.with_images(scenario, c, ledgers(scenario, c))
    phases = {name: cast(Floats, sum(ledger.values())) for name, ledger in by_phase.items()}
    stacked = np.stack(list(phases.values()))
    allocated = stacked.max(axis=0)
    reserved = _reserved(scenario, c, allocated)
    return MemoryColumns(
        allocated=allocated,
        reserved=reserved,
        device_used=device_used(scenario, c, reserved),
        host=host_memory(scenario, c, allocated, _between_steps(c, by_phase["optimizer"])),
        disk=disk(scenario, c),
        phase=cast(Floats, stacked.argmax(axis=0)),
        phases=phases,
        ledgers=by_phase,
    )


def _between_steps(c: Columns, ledger: dict[str, Floats]) -> Floats:
    """What is there of a step when it is over: all that stays, and the gradients that ZeRO-3 keeps."""
    stays = sum(size for item, size in ledger.items() if item not in ITEMS)
    return cast(Floats, stays + np.where(states.held_from_start(c), ledger["gradients"], 0.0))


def _reserved(scenario: Scenario, c: Columns, allocated: Floats) -> Floats:
    """A quick account of the segments the allocator holds: the peak, rounded up to a page, and the hole plain logits
    leave. It is low where gradients leave holes (by up to 12% as measured): exact.py replays what is to be chosen.

    The compute-dtype logits are freed below their fp32 copies, which are twice as large and cannot go there.
    """
    if scenario.on_cpu:
        return allocated.copy()
    tokens = flops.tokens(scenario, c)
    whole = scenario.each(c, lambda s: s.whole_logits)
    hole = whole * tokens * scenario.model.vocab_size * float(scenario.compute_bytes)
    return cast(Floats, np.ceil((allocated + hole) / GROWTH_BYTES) * GROWTH_BYTES)


def device_used(scenario: Scenario, c: Columns, reserved: Floats) -> Floats:
    """What the driver reports: segments, the context, and communicators where there are several ranks. Of a CPU's rank what its
    process has resident, the libraries' pages too."""
    if scenario.on_cpu:
        return cast(Floats, reserved + CPU_PROCESS_BYTES + CPU_LIBRARY_BYTES)
    communicators = np.where((c.world > 1) | c.deepspeed, float(NCCL_BYTES), 0.0)
    return cast(Floats, reserved + scenario.cluster.accelerator.context_bytes + communicators)
