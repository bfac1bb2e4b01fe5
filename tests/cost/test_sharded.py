"""Sharded strategies: the closed form against kept traces, and the rules its terms rest on."""

from __future__ import annotations

import importlib
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axoc.cost.buckets import reduce_bucket_elements
from axoc.cost.partition import _fullest

ROOT = Path(__file__).resolve().parents[2]
MEASURED_BUCKET = 500_000_000
"""Elements: DeepSpeed's default, which the measured rows were run with."""


@pytest.fixture
def versus(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("sharded_vs_trace")


def test_peaks_agree_with_the_trace(versus: Any) -> None:
    rows = versus.read(versus.KEPT)
    errors = {row["id"]: versus.peak_error(row) for row in rows}
    assert {row["strategy"] for row in rows} == {"ddp", "fsdp", "zero1", "zero2", "zero3"}
    assert not {k: f"{e:+.1%}" for k, e in errors.items() if abs(e) > 0.04}
    assert statistics.mean(abs(e) for e in errors.values()) < 0.01


@pytest.mark.parametrize(
    ("phase", "most"), [("forward", 0.04), ("loss", 0.06), ("backward", 0.15), ("optimizer", 0.01)]
)
def test_phases_agree_where_peaks_do_not_show_it(versus: Any, phase: str, most: float) -> None:
    """A term that is wrong below the peak would come to the top in another configuration."""
    errors = {row["id"]: versus.phase_errors(row)[phase] for row in versus.read(versus.KEPT)}
    assert statistics.median(abs(e) for e in errors.values()) < 0.005
    assert not {k: f"{e:+.1%}" for k, e in errors.items() if abs(e) > most}


def test_zero_3_on_one_rank_agrees_with_a_measured_peak(versus: Any) -> None:
    """Row a15: on one rank nothing is gathered, and the bucket is there from the first step on."""
    from closed_form import columns_of, read_rows, scenario_of

    (row,) = (r for r in read_rows(ROOT / "tests/cost/measured_h100.jsonl") if r["id"] == "a15")
    scenario = scenario_of(row, "h100-sxm-80gb")
    found = float(versus.memory(scenario, columns_of(row, scenario.model)).allocated[0])
    larger = 2 * (MEASURED_BUCKET - reduce_bucket_elements(scenario.model.hidden_size))
    assert found + larger == pytest.approx(row["peak_allocated"], rel=0.002)


def test_what_comes_and_goes_is_not_counted_where_it_is_not(versus: Any) -> None:
    for row in versus.read(versus.KEPT):
        ledgers = versus.predicted(row).ledgers
        for phase in ("load", "optimizer"):
            assert float(ledgers[phase]["gathered weights"][0]) == 0
            assert float(ledgers[phase]["reduction buffers"][0]) == 0


def test_a_rank_keeps_whole_what_its_borders_cut() -> None:
    """By hand: of 4 + 2 + 2 elements two ranks have 4 each, four have 2 each; the first two of these touch the 4."""
    assert _fullest((4.0, 2.0, 2.0), 2) == (4.0, 4.0, 0.5)
    assert _fullest((4.0, 2.0, 2.0), 4) == (4.0, 2.0, 0.5)
    elements, part, after = _fullest((3.0, 4.0, 1.0), 2)  # the first touches 3 and 4, the second 4 and 1
    assert (elements, part) == (7.0, 3.0)
    assert np.isclose(after, 1 / 8)
