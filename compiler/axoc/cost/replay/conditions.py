"""What a replay is told beside the plan, and what it finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from axoc.cost.replay.recorder import Recorder

STEPS: Final = 2
"""Later ones find memory as the second does."""
Loading = Callable[[Recorder, float], None]
"""Allocates a model, whose weights are so many bytes when it is there."""


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """A planner's are the defaults; others are those of a run that was measured."""

    limit_bytes: float = float("inf")
    """What the device has for the allocator, which gives its free pages back at that limit and asks once more. A plan is judged
    without one (docs/decisions/0006-replay.md)."""
    steps: int = STEPS
    """Memory that was given back is asked for again elsewhere, so that at a limit each step is another."""
    loading: Loading | None = None
    """Another than a bundle's. Peaks count from its end on."""


PLANNED: Final = Conditions()


@dataclass(frozen=True, kw_only=True)
class Replayed:
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    retries: int
    """How often the device was full, and what was free was given back."""
