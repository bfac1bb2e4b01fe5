"""Predictions that are made before anybody measures: written once, complete, and told what they were worth."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
import blind_rows  # noqa: E402

ROWS = ROOT / "benchmarks/rows"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_is_written_is_not_made_again(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    blind_rows.write_predictions([{"id": "a"}], path, {"closed_form": lambda row: {"allocated": 1}})
    blind_rows.write_predictions([{"id": "a"}, {"id": "b"}], path, {"closed_form": lambda row: {"allocated": 2}})
    assert lines(path) == [{"id": "a", "closed_form": {"allocated": 1}}, {"id": "b", "closed_form": {"allocated": 2}}]


@pytest.mark.parametrize("device", ["h100", "h200"])
def test_what_is_listed_near_a_devices_limit_is_predicted_to_fit(device: str) -> None:
    configs, predictions = (lines(ROWS / f"limit-{device}.{kind}.jsonl") for kind in ("configs", "predictions"))
    assert [c["id"] for c in configs] == [p["id"] for p in predictions] and len(configs) >= 12
    assert all(0.80 <= p["closed_form"]["planned_share"] <= 0.95 for p in predictions)
    assert {c["method"] for c in configs} == {"full", "lora", "qlora"}


def test_quantized_rows_are_predicted_as_measure_loads_them() -> None:
    row = next(r for r in lines(ROWS / "h100-judge.jsonl") if r["id"] == "k07")
    config = {k: v for k, v in row.items() if k not in ("versions", "device_total")}
    found = blind_rows.closed_form(config, blind_rows.ALONE)
    assert found["reserved"] == pytest.approx(row["peak_reserved"], rel=0.02)
    assert found["planned_share"] * row["device_total"] > 1.06 * row["device_used"]


def test_a_prediction_without_a_trace_is_reported_without_one() -> None:
    row = lines(ROWS / "h100-judge.jsonl")[0]
    measured = {name: row[theirs] for name, theirs in blind_rows.MEASURES}
    predicted = {k: 1.1 * v for k, v in measured.items()} | {"planned_share": 0.96}
    text = blind_rows.report([row], {row["id"]: {"closed_form": predicted}})
    of_the_row, largest = ([cell.strip() for cell in text[i].strip("|").split("|")] for i in (-3, -1))
    assert largest == ["largest", "", "", "10.00%", "10.00%", "10.00%", "", "", "", "", ""]
    assert of_the_row[-2:] == ["96.0%", "refused"]
