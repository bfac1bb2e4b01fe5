"""What a block's experts hold: by hand on a tape, and in a configuration in which they are the peak, against its trace."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axoc.cost import blocks, experts
from axoc.cost.activations import setting
from axoc.cost.layers import Setting
from axoc.cost.replay.recorder import again
from axoc.cost.tape import Tape, Value

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
TOKENS = np.array([100.0])
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]


@pytest.fixture
def closed_form(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("closed_form")


def of(closed_form: Any, model: str, **row: Any) -> Setting:
    row = {"model": model, "method": "lora", "dtype": "bf16", "gc": True, "mbs": 1, "seq": 128} | row
    scenario = closed_form.scenario_of(row, "h100-sxm-80gb")
    return setting(scenario, closed_form.columns_of(row, scenario.model))


def test_weights_in_fp32_make_both_factors_gradients_whole_and_wide(closed_form: Any) -> None:
    """Eight numbers a token in bf16, times two in fp32: the gradient that comes in and those of both factors are 32 bytes a token, beside
    the factors. Then the rows' is 16."""
    t, s = Tape(TOKENS), of(closed_form, "mixtral-8x7b@2")
    rows, weights = t.value(8, 2.0), t.value(2, 4.0)
    result = experts.weigh(t, s, rows, weights)
    gradient = t.allocate(result.size)
    t.drop(rows, weights, result)
    t.reset()
    t.backward(result, gradient)
    assert float(t.top[0]) == 100 * (16 + 8 + 3 * 32)
    assert float(t.live[0]) == 100 * (16 + 8)


def test_an_adapted_router_keeps_its_input(closed_form: Any) -> None:
    """Its effective weight wants a gradient: the rows in bf16, beside what the experts keep either way."""
    every = of(closed_form, "mixtral-8x7b@2")
    without = replace(every, expert_targets=every.expert_targets - {"gate"})
    (kind,) = (k for group in blocks.groups(every.scenario) for k in group if not k.first)
    kept = [float(blocks.profile(s, TOKENS, kind).kept[0]) for s in (every, without)]
    assert kept[0] - kept[1] == 100 * 4096 * 2


def test_deepseek_v3s_routing_weights_are_as_its_product_gives_them(closed_form: Any) -> None:
    """autocast lowers the product, and no softmax raises what comes of it."""
    third = of(closed_form, "deepseek-v3@4")
    assert experts.weight_bytes(third) == 2
    assert experts.weight_bytes(replace(third, autocast=False)) == 4
    assert experts.weight_bytes(of(closed_form, "deepseek-v2-lite@2")) == 4


def test_deepseeks_adapted_router_keeps_what_autocast_cast(closed_form: Any) -> None:
    every = of(closed_form, "deepseek-v2-lite@3")
    without = replace(every, expert_targets=every.expert_targets - {"gate"})
    (kind,) = (k for group in blocks.groups(every.scenario) for k in group if k.experts and not k.first)
    kept = [float(blocks.profile(s, TOKENS, kind).kept[0]) for s in (every, without)]
    assert kept[0] - kept[1] == 100 * 2048 * 2


def test_the_experts_function_has_names_for_what_it_sent_and_got_back(closed_form: Any) -> None:
    """Narrow experts, eight of them a token: at the end of a forward that keeps nothing there are the rows and what the second product
    gave, in bf16, beside the weighted rows, in their order and before."""
    s = of(closed_form, "qwen3-30b-a3b@2", targets=ATTENTION)
    t = Tape(TOKENS, records=False)
    value = t.value(2048, 2.0)
    before = float(t.live[0])
    experts.grouped(t, s, value)
    rows = 8 * 2048 * 2 * 100
    assert float(t.top[0]) - before >= 4 * rows


def test_what_a_gradient_was_cast_from_is_gone_before_a_block_is_recomputed() -> None:
    """Of two casts in a row, before the first operation that asks for what it saved: of three gradients the second one is gone."""

    def program(t: Tape, value: Value) -> Value:
        saved = t.apply(4, 2.0, [value], saves=[value.storage])
        middle = t.apply(4, 4.0, [saved], kind="cast")
        result = t.apply(4, 2.0, [middle], kind="cast")
        t.drop(saved, middle)
        return result

    found = again(program, 10.0, 4, 2.0, True)
    assert found.ahead == ((0, 160.0), (1, 80.0), (0, None))


def test_where_experts_are_the_peak_it_is_the_traces(closed_form: Any) -> None:
    """Large micro-batches, recomputed, with adapters on attention, experts and router. What the trace said before these terms were known
    (allocated -2.6%, reserved +2.9%) stands in the file."""
    at = BENCHMARKS / "rows"
    (row,) = (r for r in closed_form.read_rows(at / "limit-h100.configs.jsonl") if r["id"] == "p11")
    lines = (at / "limit-h100.predictions.jsonl").read_text().splitlines()
    (told,) = (r["trace"] for r in map(json.loads, lines) if r["id"] == "p11")
    found = closed_form.predict(row)
    assert found.bytes("allocated") == pytest.approx(told["allocated"], rel=1e-3)
    assert found.bytes("reserved") == pytest.approx(told["reserved"], rel=1e-2)
