"""Products in float8: what compiled blocks keep, which kernels they are, and what a whole plan says of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from asking import LORA, plan
from axoc.cost import blocks, float8
from axoc.cost.activations import setting
from axoc.cost.bands import SEVERAL, UNMEASURED, memory_band, time_band
from axoc.cost.columns import Columns
from axoc.cost.kernels import dense_rate, kernels_of
from axoc.cost.layers import Setting
from axoc.cost.operations import Operations
from axoc.cost.scenario import Scenario
from axoc.cost.stretches import Passes, passes
from axoc.emit.job import job_dict
from axoc.ir.plan import Plan
from cost.test_fusion import ROW, columns_of, scenario_of

TOKENS = 4096.0
HIDDEN, WIDE, KEYS = 4096.0, 14336.0, 1024.0
"""Features of Llama 3 8B."""
MODEL = "meta-llama/Llama-3.2-3B"


def asked(precision: str, **changed: str) -> tuple[Scenario, Columns]:
    row = ROW | changed
    scenario = replace(scenario_of(row, "h100-sxm-80gb"), mixed_precision=precision)
    return scenario, columns_of(row, scenario.model)


def recorded(precision: str, **changed: str) -> tuple[Setting, Operations, Passes]:
    scenario, columns = asked(precision, **changed)
    s, tape = setting(scenario, columns), Operations(np.array([TOKENS]))
    entered = tape.value(scenario.model.hidden_size, s.stream)
    output = blocks.block(tape, s, entered, blocks.groups(scenario)[0][0])
    return s, tape, passes(s, kernels_of(scenario), tape, output)


def kept(precision: str, **changed: str) -> float:
    scenario, columns = asked(precision, **changed)
    found = blocks.profile(setting(scenario, columns), np.array([TOKENS]), blocks.groups(scenario)[0][0])
    return float((found.kept + found.copies)[0])


def test_inputs_of_products_are_made_anew() -> None:
    """tests/runtime/test_float8.py, ``..._nothing_of_a_products_input_is_kept``: both norms' outputs and the gated product."""
    assert kept("bf16") - kept("fp8") == 2 * TOKENS * (2 * HIDDEN + WIDE)


def test_with_their_gradients_in_16_bits_weights_hold_on_to_what_they_multiplied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And nothing is cast by columns but weights: the input's gradient and its factor are all that is cast in a backward."""
    both = recorded("fp8")[2].backward.device
    monkeypatch.setattr(float8, "WEIGHT_GRADIENTS", False)
    one = recorded("fp8")[2].backward.device
    assert kept("fp8") == kept("bf16")
    assert (one["casts to float8"] < 0.75 * both["casts to float8"]).all()
    assert (one["matrix products"] > both["matrix products"]).all()


def test_weights_in_float32_are_cast_at_once() -> None:
    """No copy in 16 bits is made and kept of them, as autocast does."""
    copies = 2 * (2 * HIDDEN * HIDDEN + 2 * HIDDEN * KEYS + 3 * HIDDEN * WIDE)
    assert kept("bf16", dtype="fp32") - kept("fp8", dtype="fp32") >= copies


def test_each_input_is_cast_once_each_weight_twice() -> None:
    """Bytes at the rate of what is bound by memory. Forward: normal, attended, normal and gated product are read in two bytes
    and written in one, weights are read twice and written. Backward: the same inputs again by columns, weights again, and
    gradients read once and written in both layouts."""
    s, tape, found = recorded("fp8")
    weights = 2 * HIDDEN * HIDDEN + 2 * HIDDEN * KEYS + 3 * HIDDEN * WIDE
    inputs, outputs = 3 * HIDDEN + WIDE, 3 * HIDDEN + 2 * KEYS + 2 * WIDE
    moved = kernels_of(s.scenario).moved
    forward, backward = (float(p.device["casts to float8"][0]) for p in (found.forward, found.backward))
    assert forward == pytest.approx(float(moved(np.array([3 * TOKENS * inputs + 5 * weights]))[0]), rel=0.05)
    expected = TOKENS * (3 * inputs + 4 * outputs) + 3 * weights
    assert backward == pytest.approx(float(moved(np.array([expected]))[0]), rel=0.05)
    kinds = Counter(op.kind for op in tape.all)
    assert kinds["linear_float8"] == 7 and kinds["linear"] == 0


def test_a_frozen_layers_gradient_goes_into_one_product_and_its_adapter_stays_in_16_bits() -> None:
    _, tape, found = recorded("fp8", method="lora")
    full = recorded("fp8")[2]
    kinds = Counter(op.kind for op in tape.all)
    assert kinds["linear_float8"] == 7 and kinds["linear"] == 14
    assert (found.backward.device["casts to float8"] < full.backward.device["casts to float8"]).all()


def test_products_take_what_the_profile_measured() -> None:
    """A measured shape gives its own seconds back, whatever lies transposed in memory."""
    kernels, rate = kernels_of(asked("fp8")[0]), dense_rate(asked("fp8")[0])
    one = [float(kernels.matmul(layout, 8192, 4096, 4096, 1.0)[0]) for layout in ("nt", "nn", "tn")]
    assert len(set(one)) == 1
    assert 2 * 8192 * 4096 * 4096 / one[0] > 1.2e15 / 1.3 > rate / 1.3, "as measured, under sustained power"
    assert rate == 989.4e12, "model FLOPs utilization counts as it does for 16 bits"


@pytest.mark.parametrize("inventory", ["h100-sxm-80gb", "l4-24gb"])
def test_large_products_gain_by_datasheet_and_by_profile(inventory: str) -> None:
    scenario = replace(scenario_of(ROW, inventory), mixed_precision="fp8")
    kernels = kernels_of(scenario)
    halved, whole = (float(kernels.matmul("nt", 8192, 4096, 4096, b)[0]) for b in (1.0, 2.0))
    assert 0.45 < halved / whole < 0.62


def test_a_plan_says_what_is_in_float8_and_what_it_gains() -> None:
    named = frozenset({"distributed.mixed_precision"})
    in_bf16, made = (
        plan(MODEL, "h100-sxm-80gb", distributed__mixed_precision=p, model__compile=True, explicit=named)
        for p in ("bf16", "fp8")
    )
    assert isinstance(made, Plan) and isinstance(in_bf16, Plan)
    chosen, before = made.chosen.estimate, in_bf16.chosen.estimate
    assert dict(chosen.time.breakdown)["casts to float8"] > 0 and "casts to float8" not in dict(before.time.breakdown)
    assert 0.6 < chosen.time.step_seconds / before.time.step_seconds < 0.9
    assert chosen.memory.peak_allocated_bytes < before.memory.peak_allocated_bytes
    decided = {d.field: d for d in made.decisions}
    assert "196 linear layers" in decided["distributed.mixed_precision"].because
    assert decided["distributed.mixed_precision"].source == "user"
    job = job_dict(made)
    assert job["expect"]["float8_linears"] == 28 * 7 and job["distributed"]["mixed_precision"] == "fp8"
    assert job_dict(in_bf16)["expect"]["float8_linears"] == 0


def test_a_plan_compiles_where_it_is_left_open_and_float8_is_never_chosen() -> None:
    made = plan(MODEL, "h100-sxm-80gb", distributed__mixed_precision="fp8", adapter=LORA)
    assert isinstance(made, Plan) and made.chosen.candidate.compile
    assert {d.field: d.source for d in made.decisions}["model.compile"] == "rule:fp8-compile"
    left = plan(MODEL, "h100-sxm-80gb")
    assert isinstance(left, Plan) and left.chosen.candidate.mixed_precision == "bf16"


def test_its_error_bands_are_allowances_while_no_row_of_it_is_measured() -> None:
    scenario, plain = asked("fp8")[0], asked("bf16")[0]
    assert memory_band(scenario).share == UNMEASURED > memory_band(plain).share
    assert time_band(scenario, 0.0, 1) == SEVERAL > time_band(plain, 0.0, 1)
