"""The summary: predicted against measured, worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from axoc_runtime import finish
from axoc_runtime.comparison import comparison, markdown, whole_run

from runtime.jobs import make_job

GIB = 1 << 30
PREDICTED = {
    "peak_allocated_bytes": 8 * GIB, "peak_reserved_bytes": 10 * GIB, "device_used_bytes": 11 * GIB, "host_bytes": GIB,
    "step_seconds": 0.5, "tokens_per_second": 4000.0, "total_seconds": 7200.0, "cost_usd": 9.0,
    "batch_fill": 1.0,
}  # fmt: skip


def measured(*, resumed: bool = False, **changes: Any) -> dict[str, Any]:
    """Of a run of an hour, half of what was predicted."""
    value: dict[str, Any] = {
        "name": "test", "perplexity_before": 20.0, "perplexity_after": 5.0, "eval_loss_before": 3.0,
        "eval_loss_after": 1.609, "peak_allocated_bytes": 9 * GIB, "peak_reserved_bytes": 10 * GIB,
        "device_used_bytes": 11 * GIB, "step_seconds": 0.25, "tokens_per_second": 3000.0, "batch_fill": 0.4,
        "steps": 100, "device": "cuda", "predicted": PREDICTED,
    }  # fmt: skip
    value |= whole_run(PREDICTED, 3600.0, resumed=resumed) | changes
    return value | {"comparison": comparison(value)}


def test_differences_are_relative_to_the_prediction() -> None:
    found = {row["metric"]: row["difference"] for row in measured()["comparison"]}
    assert found == {
        "peak_allocated_bytes": 0.125, "peak_reserved_bytes": 0.0, "device_used_bytes": 0.0, "step_seconds": -0.5,
        "tokens_per_second": -0.25, "total_seconds": -0.5, "cost_usd": -0.5,
    }  # fmt: skip


def test_utilization_is_compared_where_the_plan_knows_a_peak() -> None:
    assert "mfu" not in {row["metric"] for row in measured()["comparison"]}
    found = {row["metric"]: row for row in measured(predicted=PREDICTED | {"mfu": 0.5}, mfu=0.4)["comparison"]}
    assert found["mfu"]["difference"] == pytest.approx(-0.2)


def test_the_cost_is_at_the_plans_price() -> None:
    assert measured()["cost_usd"] == pytest.approx(4.5), "an hour at 4.50 USD"
    without = whole_run(PREDICTED | {"cost_usd": None}, 3600.0, resumed=False)
    assert without == {"total_seconds": 3600.0, "cost_usd": None}


def test_a_resumed_run_claims_no_total() -> None:
    rows = {row["metric"]: row for row in measured(resumed=True)["comparison"]}
    assert rows["total_seconds"]["measured"] is None and rows["total_seconds"]["difference"] is None
    assert rows["cost_usd"]["measured"] is None
    assert "Resumed" in markdown(measured(resumed=True))


def test_markdown() -> None:
    text = markdown(measured())
    assert "| memory allocated | 8.00 GiB | 9.00 GiB | +12.5% |" in text
    assert "| cost | 9.00 USD | 4.50 USD | -50.0% |" in text
    assert "| perplexity | 20 | 5 |" in text
    assert "were 40%" in text


def test_finish_shows_it_and_keeps_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = make_job(tmp_path)
    job.output.mkdir()
    (job.output / "metrics.json").write_text(json.dumps(measured()))
    finish.run(job)
    shown = capsys.readouterr().out
    assert "held-out perplexity before 20.00, after 5.00 (-75%)" in shown
    row = next(line for line in shown.splitlines() if "whole run" in line)
    assert all(part in row for part in ("120.0 min", "60.0 min", "-50.0%"))
    assert (job.output / "metrics.md").read_text() == markdown(measured())
