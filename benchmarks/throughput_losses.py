"""How far apart the losses of two sides of benchmarks/throughput.py are after the same tokens, seed by seed.

    python benchmarks/throughput_losses.py ROWS.jsonl [--of axoc] [--beside flash,tuned]

A pair is a job and seed that both sides ran; only points of the same number of real tokens are compared: where the packs
were not the same there are none. The spread is that of one side's own seeds at the same point: what noise is to be taken for.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

Curve = dict[int, float]
"""Real tokens -> mean loss since the last point."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--of", default="axoc")
    parser.add_argument("--beside", default="flash,tuned")
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.rows.read_text().splitlines()]
    print(table(rows, options.of, options.beside.split(",")))
    return 0


def table(rows: list[dict[str, Any]], of: str, beside: list[str]) -> str:
    lines = [
        "| job | beside | seed | points | first | largest | last | mean of all | spread of seeds |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in (r for r in rows if r["part"] in beside):
        own = next((r for r in rows if (r["part"], r["job"], r["seed"]) == (of, row["job"], row["seed"])), None)
        apart = differences(curve(own), curve(row)) if own else []
        if apart:
            largest = max(apart, key=abs)
            lines.append(
                f"| {row['job']} | {row['part']} | {row['seed']} | {len(apart)} | {apart[0]:+.4f} | {largest:+.4f} | {apart[-1]:+.4f} | "
                f"{statistics.mean(apart):+.4f} | {_told(spread(rows, of, row['job']))} |"
            )
    return "\n".join(lines)


def curve(row: dict[str, Any]) -> Curve:
    return {round(tokens): loss for tokens, loss in row["losses"]}


def differences(one: Curve, other: Curve) -> list[float]:
    """One's loss less the other's, at the tokens that both have."""
    return [one[tokens] - other[tokens] for tokens in sorted(one.keys() & other.keys())]


def spread(rows: list[dict[str, Any]], part: str, job: str) -> float | None:
    """Standard deviation between seeds, the mean over points; None of one seed."""
    curves = [curve(r) for r in rows if (r["part"], r["job"]) == (part, job)]
    shared = sorted(set.intersection(*(set(c) for c in curves))) if len(curves) > 1 else []
    return statistics.mean(statistics.stdev(c[tokens] for c in curves) for tokens in shared) if shared else None


def _told(spread: float | None) -> str:
    return "one seed" if spread is None else f"{spread:.4f}"


if __name__ == "__main__":
    sys.exit(main())
