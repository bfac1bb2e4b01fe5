"""Loss curves of benchmarks/throughput.py as SVG: a panel a job, loss over real tokens, a line a part (and seed)."""

from __future__ import annotations

from typing import Any, Final

WIDTH: Final = 300
HEIGHT: Final = 190
MARGIN: Final = 42
FLOAT8: Final = "-fp8"
"""Ends the name of a job that is another one's in float8: its line is drawn beside that one's."""
COLOURS: Final = {
    "axoc": "#d9480f",
    "trl": "#868e96",
    "tuned": "#1971c2",
    "wrapped": "#2f9e44",
    "flash": "#7048e8",
    "fp8": "#f59f00",
}
NAMES: Final = {
    "axoc": "axoc",
    "fp8": "axoc, float8",
    "trl": "TRL as it comes",
    "tuned": "TRL tuned",
    "wrapped": "TRL, rows cut from one text",
    "flash": "TRL tuned, flash attention 4",
}


def curves(rows: list[dict[str, Any]]) -> str:
    rows = [_named(row) for row in rows]
    jobs = list(dict.fromkeys(row["job"] for row in rows))
    panels = [_panel(job, [r for r in rows if r["job"] == job], i * (WIDTH + MARGIN)) for i, job in enumerate(jobs)]
    width, height = len(jobs) * (WIDTH + MARGIN) + 12, HEIGHT + 2 * MARGIN + 22
    key = "".join(_key(i, part) for i, part in enumerate(p for p in NAMES if any(r["part"] == p for r in rows)))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="11">'
        f'<rect width="{width}" height="{height}" fill="white"/>{"".join(panels)}{key}</svg>\n'
    )


def _named(row: dict[str, Any]) -> dict[str, Any]:
    job = str(row["job"])
    return row | {"job": job.removesuffix(FLOAT8), "part": "fp8"} if job.endswith(FLOAT8) else row


def _panel(job: str, rows: list[dict[str, Any]], left: float) -> str:
    points = [p for row in rows for p in row["losses"]]
    far = max(tokens for tokens, _ in points)
    low, high = min(loss for _, loss in points), max(loss for _, loss in points)

    def at(tokens: float, loss: float) -> str:
        x = left + MARGIN + tokens / far * (WIDTH - 10)
        return f"{x:.1f},{MARGIN + (high - loss) / ((high - low) or 1) * HEIGHT:.1f}"

    marks = "".join(
        f'<text x="{left + MARGIN - 4}" y="{MARGIN + share * HEIGHT + 4}" text-anchor="end">{high - share * (high - low):.1f}</text>'
        for share in (0.0, 0.5, 1.0)
    )
    below = f'<text x="{left + MARGIN + WIDTH - 10}" y="{MARGIN + HEIGHT + 16}" text-anchor="end">{far / 1e3:,.0f} thousand tokens</text>'
    title = f'<text x="{left + MARGIN}" y="{MARGIN - 12}" font-weight="bold">{job}: loss</text>'
    frame = (
        f'<path d="M{left + MARGIN},{MARGIN} v{HEIGHT} h{WIDTH - 10}" fill="none" stroke="#adb5bd"/>'  # the two axes
    )
    return title + frame + marks + below + "".join(_line(row, at) for row in rows)


def _line(row: dict[str, Any], at: Any) -> str:
    colour, points = COLOURS[row["part"]], [at(*point) for point in row["losses"]]
    dots = "".join(f'<circle cx="{p.split(",")[0]}" cy="{p.split(",")[1]}" r="2.2" fill="{colour}"/>' for p in points)
    seeded = 1.0 if not row.get("seed") else 0.45  # the first seed's line stands out
    line = f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="1.4"/>'
    return f'<g opacity="{seeded}">{line}{dots}</g>'


def _key(index: int, part: str) -> str:
    x, y = MARGIN + index * 190, HEIGHT + 2 * MARGIN + 8
    return f'<circle cx="{x}" cy="{y - 4}" r="4" fill="{COLOURS[part]}"/><text x="{x + 9}" y="{y}">{NAMES[part]}</text>'
