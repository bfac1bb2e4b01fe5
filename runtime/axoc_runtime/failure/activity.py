"""What this rank is doing: its phase and step. The bar shows it, failures name it, and the watch waits for it to change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

STARTING: Final = "starting"
TRAINING: Final = "training"
EVALUATING: Final = "evaluating"
SAVING: Final = "saving"


@dataclass
class Activity:
    phase: str = STARTING
    step: int = 0
    """Optimizer steps made."""
    moves: int = 0
    """Grows whenever phase or step change."""
    longest_step_seconds: float = 0.0
    listener: Callable[[], None] | None = None
    """Told of every move at once."""

    def enter(self, phase: str, step: int | None = None) -> None:
        self.phase, self.step = phase, self.step if step is None else step
        self.moves += 1
        if self.listener is not None:
            self.listener()

    def to_dict(self) -> dict[str, Any]:
        return {
            "phase": self.phase,
            "step": self.step,
            "moves": self.moves,
            "longest_step_seconds": self.longest_step_seconds,
        }

    def __str__(self) -> str:
        return f"while {self.phase}" + (f" at step {self.step}" if self.step else "")


NOW: Final = Activity()
"""Of this process."""
