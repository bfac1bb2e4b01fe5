"""Charts as geometry: numbers in, coordinates and labels out. Templates only loop over them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

WIDTH: Final = 400.0
HEIGHT: Final = 260.0
LEFT, RIGHT, TOP, BOTTOM = 56.0, 388.0, 14.0, 210.0
"""The plot's edges. Narrow, so that text stays legible where the drawing is as wide as a phone."""
TICKS: Final = 5

Format = Callable[[float], str]


@dataclass(frozen=True, kw_only=True)
class Tick:
    at: float
    """Coordinate along its axis."""
    label: str


@dataclass(frozen=True, kw_only=True)
class Mark:
    x: float
    y: float
    kind: str
    """``plan`` | ``front`` | ``other``: its shape and colour."""
    label: str


@dataclass(frozen=True, kw_only=True)
class Line:
    points: str
    """Of an SVG polyline."""
    kind: str
    """``front`` | ``curve`` | ``second`` | ``limit``"""
    label: str = ""
    """Shown at the line's end, where there is one."""
    x: float = 0.0
    y: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Chart:
    id: str
    title: str
    summary: str
    """What it shows, in a sentence or two, for those who do not see it."""
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    marks: tuple[Mark, ...] = ()
    lines: tuple[Line, ...] = ()
    legend: tuple[tuple[str, str], ...] = ()
    """Kind and name."""
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    """The same as a table."""


@dataclass(frozen=True)
class Scale:
    """A linear axis from ``low`` to ``high`` in the values' unit, drawn from ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        return round(self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low), 1)

    def ticks(self, write: Format) -> tuple[Tick, ...]:
        step = nice_step((self.high - self.low) / TICKS)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return tuple(Tick(at=self.at(i * step), label=write(i * step)) for i in range(first, last + 1))


def nice_step(about: float) -> float:
    """1, 2 or 5 times a power of ten, at least ``about``. Raises ValueError unless it is positive and finite."""
    power = 10.0 ** math.floor(math.log10(about))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= about * (1 - 1e-9))


def x_scale(values: Sequence[float], *, from_zero: bool = True) -> Scale:
    return Scale(*_range(values, from_zero), LEFT, RIGHT)


def y_scale(values: Sequence[float], *, from_zero: bool = True) -> Scale:
    return Scale(*_range(values, from_zero), BOTTOM, TOP)


def _range(values: Sequence[float], from_zero: bool) -> tuple[float, float]:
    """With a little room, and never empty."""
    low, high = (0.0 if from_zero else min(values)), max(values)
    spread = (high - low) or abs(high) or 1.0
    room = 0.06 * spread
    return (low if from_zero else low - room), high + room


def polyline(points: Sequence[tuple[float, float]], x: Scale, y: Scale) -> str:
    return " ".join(f"{x.at(a):g},{y.at(b):g}" for a, b in points)


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those that no other beats in both coordinates (less is better), in ascending order of the first."""
    best, kept = math.inf, []
    for point in sorted(set(points)):
        if point[1] < best:
            best = point[1]
            kept.append(point)
    return kept


def staircase(points: Sequence[tuple[float, float]], right: float, top: float) -> list[tuple[float, float]]:
    """The edge of what a front leaves: down at each point, level to the next, from ``top`` to ``right``."""
    corners = [(points[0][0], top)]
    for (a, b), following in zip(points, [*points[1:], None], strict=True):
        corners += [(a, b), (following[0] if following else right, b)]
    return corners
