"""The profile as an SVG: a bar a method for size, memory, speeds and perplexity, which has its interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from axoc_runtime.quantize.rows import Row

BAR, GAP, LEFT, PANEL, TOP, LABEL = 16, 8, 110, 200, 70, 84
"""Pixels."""
INK, BLUE, GREY, RED = "#1f2933", "#4878a8", "#9aa5b1", "#b3261e"
LEGEND: Final = (
    "Red: of speeds the slowest and the fastest that was measured, of the perplexity the 95% interval. –: not measured."
)


@dataclass(frozen=True, kw_only=True)
class _Bar:
    value: float
    low: float
    high: float
    label: str


Figure = Callable[[Row], _Bar | None]


def plot(rows: Sequence[Row], title: str) -> str:
    """Methods without figures are named, with no bars."""
    below = TOP + len(rows) * (BAR + GAP)
    width, height = LEFT + len(PANELS) * PANEL, below + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        _text(10, 24, title, size=14),
    ]
    parts += [_text(10, _y(i) + 12, row.method.name) for i, row in enumerate(rows)]
    for index, (name, figure) in enumerate(PANELS):
        parts += _panel(LEFT + index * PANEL, name, [figure(row) for row in rows])
    return "\n".join([*parts, _text(10, below + 20, LEGEND, fill=GREY), "</svg>"]) + "\n"


def _y(index: int) -> int:
    return TOP + index * (BAR + GAP)


def _panel(left: int, name: str, bars: Sequence[_Bar | None]) -> list[str]:
    """Its axis holds zero, and what is below zero lies to the left of it."""
    ends = [v for b in bars if b is not None for v in (b.value, b.low, b.high)]
    least, most = min([0.0, *ends]), max([0.0, *ends])
    scale = (PANEL - LABEL) / ((most - least) or 1.0)
    parts = [_text(left, TOP - 14, name, weight="bold")]
    for index, bar in enumerate(bars):
        if bar is None:
            parts.append(_text(left, _y(index) + 12, "–", fill=GREY))
        else:
            parts += _drawn(bar, _y(index), lambda value: left + (value - least) * scale)
    return parts


def _drawn(bar: _Bar, y: int, x: Callable[[float], float]) -> list[str]:
    first, last = sorted((x(0.0), x(bar.value)))
    parts = [f'<rect x="{first:.1f}" y="{y}" width="{last - first:.1f}" height="{BAR}" fill="{BLUE}"/>']
    if bar.low < bar.high:
        low, high, middle = x(bar.low), x(bar.high), y + BAR / 2
        ends = f"M{low:.1f} {middle - 4}V{middle + 4}M{high:.1f} {middle - 4}V{middle + 4}"
        parts.append(f'<path d="M{low:.1f} {middle}H{high:.1f}{ends}" stroke="{RED}"/>')
    return [*parts, _text(max(last, x(bar.high)) + 5, y + 12, bar.label)]


def _text(x: float, y: float, text: str, *, size: int = 12, weight: str = "normal", fill: str = INK) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" fill="{fill}">{escape(text)}</text>'
    )


def _size(row: Row) -> _Bar | None:
    return _plain(row.size_bytes / 1e6, f"{row.size_bytes / 1e6:,.0f} MB") if row.measured else None


def _memory(row: Row) -> _Bar | None:
    where = "" if row.on_gpu else " host"
    return _plain(row.peak_bytes / 1e6, f"{row.peak_bytes / 1e6:,.0f} MB{where}") if row.measured else None


def _plain(value: float, label: str) -> _Bar:
    return _Bar(value=value, low=value, high=value, label=label)


def _reading(row: Row) -> _Bar | None:
    return _speed(row.read_speed)


def _writing(row: Row) -> _Bar | None:
    return _speed(row.write_speed)


def _speed(found: dict[str, float] | None) -> _Bar | None:
    if found is None:
        return None
    return _Bar(value=found["median"], low=found["slowest"], high=found["fastest"], label=f"{found['median']:,.0f}")


def _perplexity(row: Row) -> _Bar | None:
    c = row.change
    if c is None:
        return _plain(0.0, f"{row.perplexity:.4g}, unquantized") if row.perplexity else None
    return _Bar(value=c.value, low=c.low, high=c.high, label=f"{c.value:+.1%}")


PANELS: Final[tuple[tuple[str, Figure], ...]] = (
    ("Size on disk", _size),
    ("Peak memory", _memory),
    ("Tokens a second, reading", _reading),
    ("Tokens a second, writing", _writing),
    ("Perplexity, change", _perplexity),
)
