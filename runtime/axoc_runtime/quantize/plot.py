"""The profile as an SVG: a bar a method for size, memory, speed and perplexity, which has its interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from axoc_runtime.quantize.rows import Row

BAR, GAP, LEFT, PANEL, TOP, LABEL = 16, 8, 110, 200, 70, 84
"""Pixels."""
INK, BLUE, GREY, RED = "#1f2933", "#4878a8", "#9aa5b1", "#b3261e"


@dataclass(frozen=True, kw_only=True)
class _Bar:
    value: float
    low: float
    high: float
    label: str


Figure = Callable[[Row], _Bar | None]


def plot(rows: Sequence[Row], title: str) -> str:
    """Methods without figures are named, with no bars."""
    height = TOP + len(rows) * (BAR + GAP) + 20
    width = LEFT + len(PANELS) * PANEL
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        _text(10, 24, title, size=14),
    ]
    parts += [_text(10, _y(i) + 12, row.method.name) for i, row in enumerate(rows)]
    for index, (name, figure) in enumerate(PANELS):
        parts += _panel(LEFT + index * PANEL, name, [figure(row) for row in rows])
    return "\n".join([*parts, "</svg>"]) + "\n"


def _y(index: int) -> int:
    return TOP + index * (BAR + GAP)


def _panel(left: int, name: str, bars: Sequence[_Bar | None]) -> list[str]:
    most = max((abs(v) for b in bars if b is not None for v in (b.value, b.low, b.high)), default=0.0) or 1.0
    scale = (PANEL - LABEL) / most
    parts = [_text(left, TOP - 14, name, weight="bold")]
    for index, bar in enumerate(bars):
        if bar is None:
            parts.append(_text(left, _y(index) + 12, "–", fill=GREY))
            continue
        length = max(0.0, bar.value) * scale
        parts.append(f'<rect x="{left}" y="{_y(index)}" width="{length:.1f}" height="{BAR}" fill="{BLUE}"/>')
        parts += _whisker(left, _y(index) + BAR / 2, bar, scale) if bar.low < bar.high else []
        end = left + max(length, max(0.0, bar.high) * scale) + 5
        parts.append(_text(end, _y(index) + 12, bar.label))
    return parts


def _whisker(left: int, y: float, bar: _Bar, scale: float) -> list[str]:
    low, high = (left + max(0.0, v) * scale for v in (bar.low, bar.high))
    return [
        f'<path d="M{low:.1f} {y}H{high:.1f}M{low:.1f} {y - 4}V{y + 4}M{high:.1f} {y - 4}V{y + 4}" stroke="{RED}"/>'
    ]


def _text(x: float, y: float, text: str, *, size: int = 12, weight: str = "normal", fill: str = INK) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" fill="{fill}">{escape(text)}</text>'
    )


def _size(row: Row) -> _Bar | None:
    return _plain(row.size_bytes / 1e6, f"{row.size_bytes / 1e6:,.0f} MB") if row.measured else None


def _memory(row: Row) -> _Bar | None:
    return _plain(row.peak_bytes / 1e6, f"{row.peak_bytes / 1e6:,.0f} MB") if row.measured else None


def _plain(value: float, label: str) -> _Bar:
    return _Bar(value=value, low=value, high=value, label=label)


def _speed(row: Row) -> _Bar | None:
    found = row.write_speed or row.read_speed
    if found is None:
        return None
    label = f"{found['median']:,.0f}" + ("" if row.write_speed else " read")
    return _Bar(value=found["median"], low=found["slowest"], high=found["fastest"], label=label)


def _perplexity(row: Row) -> _Bar | None:
    c = row.change
    if c is None:
        return _plain(0.0, f"{row.perplexity:.3g}, unquantized") if row.perplexity else None
    return _Bar(value=c.value, low=c.low, high=c.high, label=f"{c.value:+.1%}")


PANELS: Final[tuple[tuple[str, Figure], ...]] = (
    ("Size on disk", _size),
    ("Peak memory", _memory),
    ("Tokens a second, writing", _speed),
    ("Perplexity, change", _perplexity),
)
