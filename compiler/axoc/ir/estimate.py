"""Estimate: what a candidate is predicted to need. Bytes are of the fullest rank over a whole run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LedgerItem:
    item: str
    bytes: int


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
    disk_bytes: int


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
    cost_usd: float | None


@dataclass(frozen=True, kw_only=True)
class Estimate:
    memory: MemoryEstimate
    time: TimeEstimate
    memory_error_band: float
    time_error_band: float
