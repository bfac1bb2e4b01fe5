"""How long the rows are: what the report says, and what a plan's time is made of."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

BUCKETS: Final = 64
"""Of equal width: the planner's expected padding then is right to about a hundredth of the longest row."""
SHOWN: Final = "▁▂▃▄▅▆▇█"
BARS: Final = 32


def summary(lengths: Any) -> dict[str, Any]:
    """Of rows' tokens: rows, tokens, max, quantiles and a histogram of (tokens up to, rows)."""
    every = np.asarray(lengths, np.int64)
    if not len(every):
        return {"rows": 0, "tokens": 0, "max": 0, "quantiles": {}, "histogram": []}
    width = max(1, -(-int(every.max()) // BUCKETS))
    counts = np.bincount((every - 1) // width)
    quantiles = np.quantile(every, (0.5, 0.9, 0.99), method="inverted_cdf")
    return {
        "rows": len(every),
        "tokens": int(every.sum()),
        "max": int(every.max()),
        "quantiles": dict(zip(("p50", "p90", "p99"), (int(q) for q in quantiles), strict=True)),
        "histogram": [[(i + 1) * width, int(count)] for i, count in enumerate(counts) if count],
    }


def padded_share(lengths: Any, rows_at_once: int) -> float:
    """Expected share of padding where so many rows, drawn at random, are padded to the longest of them: 1 - E[n] m over
    the expected longest, sum of n (F(n)^m - F(n-)^m)."""
    every = np.sort(np.asarray(lengths, np.float64))
    upto = (np.arange(1, len(every) + 1) / len(every)) ** rows_at_once
    longest = float(every @ np.diff(upto, prepend=0.0))
    return 1.0 - float(every.mean()) / longest


def picture(found: dict[str, Any]) -> str:
    """The histogram in a line of bars, from the shortest row to the longest."""
    bars = np.zeros(BARS)
    for upto, count in found["histogram"]:
        bars[min(BARS - 1, (upto - 1) * BARS // max(found["max"], 1))] += count
    return "".join(SHOWN[round(b / bars.max() * (len(SHOWN) - 1))] if b else " " for b in bars)
