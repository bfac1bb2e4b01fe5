"""Estimate: what a candidate is predicted to need. Bytes are of the fullest rank over a whole run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LedgerItem:
    item: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class PhaseLedger:
    """What is live at the top of one phase."""

    phase: str
    items: tuple[LedgerItem, ...]


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    device_used_bytes: int
    capacity_bytes: int
    """What the plan may use: the device or the user's budget, whichever is less."""
    peak_phase: str
    ledger: tuple[LedgerItem, ...]
    """What is live at the peak; sums to peak_allocated_bytes."""
    phases: tuple[LedgerItem, ...]
    """Allocated bytes at the top of each phase."""
    host_bytes: int
    """Of the fullest node, over a whole launch."""
    disk_bytes: int
    host_phase: str = ""
    """Of a launch, where the host needs most: prepare, load, train, save, finish or export."""
    host_ledger: tuple[LedgerItem, ...] = ()
    """What the host holds in that phase; sums to host_bytes."""
    disk_ledger: tuple[LedgerItem, ...] = ()
    """Sums to disk_bytes."""
    by_phase: tuple[PhaseLedger, ...] = ()
    """The device's ledger of every phase."""
    host_by_phase: tuple[PhaseLedger, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RunItem:
    item: str
    seconds: float
    source: str
    """What the figure rests on."""


@dataclass(frozen=True, kw_only=True)
class TimeEstimate:
    step_seconds: float
    breakdown: tuple[tuple[str, float], ...]
    """Seconds of a step by part: matmul, attention, memory-bound, communication, ..."""
    tokens_per_second: float
    mfu: float
    """Model FLOP/s over the datasheet's dense rate for the compute dtype."""
    total_steps: int | None
    total_seconds: float | None
    """Of the whole run, start-up, evaluation and checkpoints included; None where the number of steps is not known."""
    cost_usd: float | None
    """Of the whole run, at the price on demand or the inventory's own."""
    spot_cost_usd: float | None = None
    """The same at the spot price, with what is expected to be lost where nodes may be taken away."""
    failures_expected: float = 0.0
    """Of the whole run, on demand; what they lose is an item of it."""
    run_breakdown: tuple[RunItem, ...] = ()
    """Adds up to total_seconds where that is known; else what is known of it."""
    padding_share: float = 0.0
    """Of the tokens that are computed, those that are none of the data's; 0 where rows are taken full."""
    batch_fill: float = 1.0
    """Tokens of the batch to be expected, padding included, over those of full rows: 1 where rows are packed."""
    row_lengths: str = ""
    """What says how long rows are; empty where nothing does, and they are taken full."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    memory: MemoryEstimate
    time: TimeEstimate
    memory_error_band: float
    """Share of the driver-used bytes, either way."""
    time_error_band: float
    memory_error_rows: int = 0
    """Measured rows the memory band is of; 0 where it is an allowance."""
    memory_error_measured: str = ""
    """When that was counted, as an ISO date."""
