"""What a planner would have said of measured rows: how it is counted, and that a verdict is a plan's and not a run's."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
import memory_verdicts  # noqa: E402
from memory_verdicts import Verdict, tally  # noqa: E402


def verdict(row: str, used: float | None, planned: float, built: bool = False) -> Verdict:
    return Verdict(set="", row=row, used=used, planned=planned, built=built)


def test_rows_are_counted_by_how_full_the_device_was() -> None:
    found = [
        verdict("a", 0.5, 0.5, built=True),
        verdict("b", 0.85, 0.96),
        verdict("c", 0.90, 0.93),
        verdict("d", 0.93, 1.01),
        verdict("e", None, 1.2),
        verdict("f", None, 0.94),
    ]
    text = "\n".join(tally(found))
    for line in (
        "| below 80% | 1 | 0 | 1 | 0 |",
        "| 80 to 90% | 1 | 1 | 0 | 1 |",
        "| 90 to 95% | 2 | 2 | 1 | 1 |",
        "| 95% and above | 0 | 0 | 0 | 0 |",
        "| ran out of memory | 2 | 2 | 1 | 1 |",
    ):
        assert line in text
    assert "Of 3 that were declared to fit 1 ran out of memory (f), and the fullest of them used 90.0%" in text
    assert "of 3 that ran within 90% 1 (33.3%) would be refused (b)" in text
    assert "Refused, and used between 90% and 95%: d (used 93.0%, planned 101.0%)." in text


def test_a_verdict_is_a_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    """m11 ran, because its device was asked a second time."""
    rows = map(json.loads, (ROOT / "benchmarks/rows/h100-borderline.jsonl").read_text().splitlines())
    row = next(r for r in rows if r["id"] == "m11")
    assert row["device_used"] < 0.95 * row["device_total"]
    assert not memory_verdicts.fits(row, 0.97)


def test_a_row_that_ran_out_of_memory_counts_and_one_that_failed_otherwise_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[dict[str, Any]] = [
        {"id": "ran", "device_used": 45, "peak_reserved": 44, "device_total": 100},
        {"id": "full", "error": "OutOfMemoryError: CUDA out of memory. Tried to allocate 512.00 MiB."},
        {"id": "other", "error": "ImportError: no such module"},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    monkeypatch.setattr(memory_verdicts, "planned", lambda row: 0.5)
    found = memory_verdicts.of_one({"some": path}, ("some",))
    assert [(v.row, v.used, v.built, v.fits) for v in found] == [("ran", 0.45, True, True), ("full", None, True, True)]


def test_a_device_that_had_been_full_counts_at_its_fullest() -> None:
    """m15's allocator had given 8 GB back by the end, when the device was asked."""
    rows = map(json.loads, (ROOT / "benchmarks/rows/h100-limit.jsonl").read_text().splitlines())
    found = {row["id"]: row for row in rows}
    assert found["m15"]["device_used"] < 0.84 * found["m15"]["device_total"]
    assert memory_verdicts.used_share(found["m15"]) == pytest.approx(0.9407, abs=1e-4)
    assert memory_verdicts.used_share(found["m14"]) == found["m14"]["device_used"] / found["m14"]["device_total"]
