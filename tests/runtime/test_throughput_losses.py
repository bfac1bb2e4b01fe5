"""Losses of two sides are compared at the same tokens of the same seed only."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import throughput_losses


def row(part: str, seed: int, *losses: tuple[float, float], job: str = "1b-full") -> dict[str, Any]:
    return {"part": part, "job": job, "seed": seed, "losses": losses}


def test_points_of_other_tokens_are_left_out() -> None:
    one, other = {100: 2.0, 200: 1.5, 300: 1.0}, {100: 2.5, 250: 9.0, 300: 1.25}
    assert throughput_losses.differences(one, other) == [-0.5, -0.25]


def test_a_line_for_each_seed_that_both_ran_beside_the_spread_of_ones_own() -> None:
    rows = [
        row("axoc", 0, (100, 2.0), (200, 1.0)),
        row("axoc", 1, (100, 4.0), (200, 1.0)),
        row("flash", 0, (100, 2.25), (200, 1.0)),
        row("flash", 2, (100, 2.25)),
        row("tuned", 0, (150, 2.0)),
    ]
    assert throughput_losses.spread(rows, "axoc", "1b-full") == pytest.approx(2**0.5 / 2)
    (line,) = throughput_losses.table(rows, "axoc", ["flash", "tuned"]).splitlines()[2:]
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        "1b-full", "flash", "0", "2", "-0.2500", "-0.2500", "+0.0000", "-0.1250", "0.7071",
    ]  # fmt: skip


def test_the_published_rows_hold_three_seeds_of_the_1b_that_learn_the_same() -> None:
    import json

    path = Path(throughput_losses.__file__).parent / "rows" / "h100-throughput-same-packs.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for seed in (0, 1, 2):
        own, other = (
            next(r for r in rows if (r["job"], r["part"], r["seed"]) == ("1b-full", part, seed))
            for part in ("axoc", "flash")
        )
        apart = throughput_losses.differences(throughput_losses.curve(own), throughput_losses.curve(other))
        assert len(apart) == 14 and max(map(abs, apart)) < 0.01
