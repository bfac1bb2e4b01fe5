"""What a table of the profile is, and the loop that fills one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from axoc_runtime.calibrate.clock import Clock, now
from axoc_runtime.calibrate.progress import Bar

Value = str | int | float | bool
Point = tuple[Value, ...]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table to be filled. ``measure`` gets the clock and a point and returns the columns after the point's own."""

    name: str
    about: str
    keys: tuple[str, ...]
    values: tuple[str, ...]
    """Columns that are measured, with their units in their names."""
    points: Sequence[Point]
    measure: Callable[[Clock, Point], Sequence[Value]]
    needs: tuple[str, ...] = ()
    """Packages without which the table is left out."""


@dataclass
class Filled:
    """A table's rows, and what is missing of it and why."""

    table: Table
    rows: list[Point] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return {
            "about": self.table.about,
            "columns": [*self.table.keys, *self.table.values],
            "rows": [[rounded(v) for v in row] for row in self.rows],
            "seconds_to_measure": round(self.seconds, 2),
        }


def fill(table: Table, clock: Clock, deadline: float, bar: Bar) -> Filled:
    """Measures the points in order until ``deadline`` (of ``now()``). A point that fails is left out with its reason."""
    filled, began = Filled(table), now()
    filled.missing += [f"needs {name}, which is not installed" for name in table.needs if find_spec(name) is None]
    if filled.missing:
        return filled
    for done, point in enumerate(table.points):
        if now() > deadline:
            filled.missing.append(f"out of time after {done} of {len(table.points)} points")
            break
        _measure(filled, clock, point)
        bar.show(table.name, done + 1, len(table.points))
    filled.seconds = now() - began
    return filled


def _measure(filled: Filled, clock: Clock, point: Point) -> None:
    try:
        filled.rows.append((*point, *filled.table.measure(clock, point)))
    except (RuntimeError, NotImplementedError, ImportError, AttributeError, TypeError, ValueError) as error:
        told = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        filled.missing.append(f"{' '.join(map(str, point))}: {told}")
    finally:
        clock.release()


def rounded(value: Any) -> Any:
    """Five digits are more than any measurement repeats."""
    return float(f"{value:.5g}") if isinstance(value, float) else value
