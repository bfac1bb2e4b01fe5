"""Error bands are those of the measured rows, and the file that holds them is what the benchmark gives."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from asking import LORA, facts, request
from axoc.cost import bands
from axoc.search.choose import scenarios

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

FILE = files("axoc.facts").joinpath("data", "memory_errors.json")
TIME_FILE = files("axoc.facts").joinpath("data", "time_errors.json")


def scenario(inventory: str, kernels: str) -> Any:
    made = request("meta-llama/Llama-3.2-1B", adapter=LORA, model__kernels=kernels)
    return scenarios(made, facts(made, inventory))[0][0].variant(0)


@pytest.mark.parametrize(("kernels", "kind"), [("liger", "fused"), ("none", "plain")])
def test_the_band_is_the_largest_error_of_driver_used_bytes(kernels: str, kind: str) -> None:
    measured = json.loads(FILE.read_text())
    found = bands.memory_band(scenario("h100-sxm-80gb", kernels))
    assert found.share == measured["kinds"][kind]["device_used"]["largest"] > 0
    assert (found.rows, found.measured) == (measured["kinds"][kind]["rows"], measured["made"]) and found.rows > 10


def test_sharded_strategies_have_a_band_of_their_own() -> None:
    """Of two GPUs, some of whose rows also built the model: wider, and it says how few."""
    alone, sharded = (bands.memory_band(scenario("h100-sxm-80gb", "liger"), sharded=s) for s in (False, True))
    assert sharded.share > alone.share
    assert sharded.rows >= 25


def test_where_nothing_was_measured_the_band_says_so() -> None:
    assert bands.memory_band(scenario("cpu", "none")).rows == 0


def test_errors_are_counted_by_kind_and_without_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    import memory_accuracy

    class Twice:
        def bytes(self, name: str) -> float:
            return 90.0

    monkeypatch.setattr(memory_accuracy, "predict", lambda row: Twice())
    measured = dict.fromkeys(("peak_allocated", "reserved", "device_used"), 100)
    rows = [measured | {"peak_reserved": 100, "liger": True}, measured | {"peak_reserved": 60, "device_used": 75}]
    found = memory_accuracy.bands(rows, [])["kinds"]
    assert found["fused"]["rows"] == found["plain"]["rows"] == 1
    assert found["fused"]["device_used"] == {"mean": 0.1, "largest": 0.1}
    assert found["plain"]["device_used"] == {"mean": 0.2, "largest": 0.2}


def test_a_step_that_waits_for_the_host_is_known_less_well() -> None:
    measured = json.loads(TIME_FILE.read_text())["kinds"]
    profiled, bare = scenario("h100-sxm-80gb", "none"), scenario("a100-sxm-80gb", "none")
    assert bands.time_band(profiled, 0.0, 1) == measured["profile, busy"]["largest"]
    assert bands.time_band(profiled, 0.4, 1) == measured["profile, waiting"]["largest"]
    assert bands.time_band(bare, 0.0, 1) == measured["datasheet, busy"]["largest"]
    assert bands.time_band(profiled, 0.0, 1) < bands.time_band(bare, 0.0, 1) < bands.time_band(profiled, 0.0, 8)
    assert bands.time_band(scenario("cpu", "none"), 0.0, 1) == bands.CPU


def test_time_errors_are_those_of_the_rows_that_judge() -> None:
    """Nearly: each term that memory's closed form gains moves the time too, and the file is written anew now and then."""
    import time_accuracy as accuracy

    rows = [accuracy.predict(row) for path in accuracy.JUDGING.values() for row in accuracy.timed(path)]
    rows += accuracy.other_host()
    for kind, expected in json.loads(TIME_FILE.read_text())["kinds"].items():
        found = accuracy.bands(rows)["kinds"][kind]
        assert found["mean"] == pytest.approx(expected["mean"], abs=0.03), kind
        assert found["largest"] == pytest.approx(expected["largest"], abs=0.05), kind


def test_adapters_of_experts_are_known_least() -> None:
    adapted = request("mistralai/Mixtral-8x7B-v0.1", adapter=LORA)
    attention = request("mistralai/Mixtral-8x7B-v0.1", adapter=replace(LORA, targets=("q_proj",)))
    whole, few = (scenarios(m, facts(m, "h100-sxm-80gb:8"))[0][0].variant(0) for m in (adapted, attention))
    assert bands.adapts_experts(whole) and not bands.adapts_experts(few)
    measured = json.loads(TIME_FILE.read_text())["kinds"]["profile, experts"]["largest"]
    assert bands.time_band(whole, 0.0, 1) == measured > bands.time_band(few, 0.0, 1)
