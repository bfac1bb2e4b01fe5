"""ZeRO-3's Python against the rows it was read from, and where it says nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asking import LORA, facts, request
from axoc.cost.columns import STRATEGIES
from axoc.cost.zero3_hooks import host_seconds
from axoc.search.choose import all_passes

ROWS = Path(__file__).resolve().parents[2] / "benchmarks/rows/h200-several.jsonl"
MODELS = {
    "1b-full": "meta-llama/Llama-3.2-1B",
    "3b-full": "meta-llama/Llama-3.2-3B",
    "8b-full": "meta-llama/Meta-Llama-3-8B",
}


def seconds(model: str, strategy: str, **wanted: Any) -> float:
    asked = request(model, **wanted)
    costed = all_passes(asked, facts(asked, "h200-sxm-141gb:2"))[0].costed
    one = costed.columns.rows(np.array([0]))
    of_strategy = replace(one, strategy=np.array([STRATEGIES.index(strategy)]))  # type: ignore[arg-type]
    return float(host_seconds(costed.scenario.variant(0), of_strategy)[0])


@pytest.mark.parametrize("job", MODELS)
def test_steps_that_wait_for_the_hooks_take_as_long_as_they(job: str) -> None:
    rows = [json.loads(line) for line in ROWS.read_text().splitlines()]
    row = next(r for r in rows if (r["job"], r["variant"]) == (job, "zero3"))
    assert seconds(MODELS[job], "zero3") == pytest.approx(row["measured"]["step_seconds"], rel=0.04)


def test_no_other_strategy_has_them_and_an_adapter_has_more() -> None:
    assert {seconds(MODELS["1b-full"], other) for other in STRATEGIES if other != "zero3"} == {0.0}
    full = seconds(MODELS["1b-full"], "zero3")
    adapted = seconds(MODELS["1b-full"], "zero3", adapter=LORA)
    assert adapted == pytest.approx(full * (3 * 7 + 2) / (7 + 2))
