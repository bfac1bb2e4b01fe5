"""What the host takes beside launching kernels: walks through modules, and a checkpoint's hooks."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axoc.cost import blocks, stretches, walks
from axoc.cost.activations import setting
from axoc.cost.forward import FORWARD, MASK_LAUNCHES, PARAMETRIZED_OPERATIONS
from axoc.cost.kernels import kernels_of
from axoc.cost.launching import UNEVEN_PASS, host_costs
from axoc.cost.layers import norm
from axoc.cost.meter import Meter
from axoc.cost.mlp import activated, times
from axoc.cost.modules import modules
from axoc.cost.operations import Operations
from axoc.cost.stretches import Passes
from axoc.cost.time import optimizer_seconds, step_time

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from closed_form import columns_of, scenario_of
from host_launches import machines

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
H100 = "h100-sxm-80gb"
ROW: dict[str, Any] = {"model": "llama-3-8b", "method": "lora", "dtype": "bf16", "gc": False, "mbs": 1, "seq": 2048}
MODULES = {
    # as len(list(model.modules())) of transformers 5.17 counts them, and under PEFT 0.21 with adapters of all linear layers
    "llama-3.2-1b": (215, 1337),
    "qwen3-4b": (547, 3069),
    "gemma-2-2b": (397, 2219),
    "gemma-3-1b": (449, 2271),
    "olmo-2-7b": (487, 2729),
    "mixtral-8x7b": (391, None),
    "qwen3-30b-a3b": (679, None),
}


@pytest.mark.parametrize("model", MODULES)
def test_modules_are_counted_as_transformers_and_peft_make_them(model: str) -> None:
    plain, adapted = MODULES[model]
    assert modules(scenario_of(ROW | {"model": model, "method": "full"}, H100)) == plain
    if adapted is not None:  # PEFT's own two models are not counted
        assert modules(scenario_of(ROW | {"model": model}, H100)) == adapted - 2


def test_a_step_walks_three_times_a_micro_step_and_twice_more() -> None:
    def without(row: dict[str, Any]) -> tuple[float, float]:
        scenario = scenario_of(row, H100)
        columns = columns_of(row, scenario.model)
        host = float(step_time(scenario, columns).step_seconds[0])
        return host, float(optimizer_seconds(scenario, columns)[0])

    scenario = scenario_of(ROW, H100)
    walk = walks.each_pass(scenario)
    assert 0.003 < walk < 0.012  # 2,663 modules at a few microseconds
    (one, optimizer), (four, same) = without(ROW), without(ROW | {"ga": 4})
    assert optimizer == same
    assert optimizer > 2 * walk
    assert (four - one) / 3 > 3 * walk + 0.15


def test_a_run_that_counts_no_operations_walks_twice_less_a_micro_step() -> None:
    row = ROW | {"ga": 4}
    counted = scenario_of(row, H100)
    columns = columns_of(row, counted.model)
    ours = replace(counted, counts_operations=False)
    saved = step_time(counted, columns).step_seconds[0] - step_time(ours, columns).step_seconds[0]
    assert saved == pytest.approx(4 * 2 * walks.each_pass(counted))


def test_a_checkpoint_costs_by_the_tensors_that_it_saves() -> None:
    """Adapters save more: a block with them costs more to recompute than its second forward's launches tell."""
    found = {method: block(method) for method in ("full", "lora")}
    costs = host_costs(scenario_of(ROW, H100))
    plain, adapted = (found[m].hooks(costs) for m in ("full", "lora"))
    assert 20 < found["full"].saved < found["lora"].saved < 70
    assert sum(adapted) == pytest.approx(found["lora"].saved * costs.saved)
    assert plain[0] < plain[1]


def test_an_adapter_costs_the_backward_too() -> None:
    found = block("lora")
    assert found.backward.adapted == found.forward.adapted == 7


def test_parts_of_a_fused_product_take_longer_than_whole_tensors() -> None:
    """silu(gate) * up of halves: 1.67 times as long as of two tensors (pieces of rows/h100-kernel-times.jsonl.xz)."""
    scenario = scenario_of(ROW, H100)
    meters = [Meter(scenario, kernels_of(scenario), 1) for _ in range(2)]
    for meter, is_half in zip(meters, (True, False), strict=True):
        tape = Operations(np.array([4096.0]))
        whole = tape.value(2 * 8192.0, 2.0, needs_gradient=True)
        gate, up = (
            tape.split(whole, 8192.0, 8192.0)
            if is_half
            else [tape.value(8192.0, 2.0, needs_gradient=True) for _ in range(2)]
        )
        times(tape, activated(tape, gate), up)
        for operation in tape.all:
            FORWARD[operation.kind](operation, meter)
    halves, plain = (float(meter.total[0]) for meter in meters)
    assert plain == pytest.approx(116.4e-6, rel=0.1)
    assert halves == pytest.approx(194.5e-6, rel=0.1)


def test_rows_of_one_machine_are_of_no_model_twice() -> None:
    rows = [["llama", "bf16", False], ["llama", "bf16", True], ["llama", "bf16", False], ["gpt2", "bf16", False]]
    assert machines(rows) == [0, 0, 1, 1]


def block(method: str) -> Passes:
    row = ROW | {"method": method, "gc": True}
    scenario = scenario_of(row, H100)
    s = setting(scenario, columns_of(row, scenario.model))
    return stretches.block(s, kernels_of(scenario), np.array([2048.0]), blocks.groups(scenario)[0][0])


def test_a_compiled_blocks_guards_go_by_its_modules() -> None:
    """Adapters multiply a block's modules, which Dynamo looks at before each run."""
    plain, adapted = (scenario_of(ROW | {"method": m, "compile": True}, H100) for m in ("full", "lora"))
    eager = host_costs(scenario_of(ROW, H100)).each_pass
    assert eager < host_costs(plain).each_pass < host_costs(adapted).each_pass
    assert host_costs(adapted).each_pass - host_costs(plain).each_pass == pytest.approx(70 * 0.022 * eager)


def test_compiled_blocks_of_ever_other_lengths_cost_the_host_more() -> None:
    """Packed, every batch is as long as the others; uncompiled, it is all the same."""
    row = ROW | {"model": "llama-3.2-1b", "method": "full", "compile": True, "lengths": "chat"}

    def each_pass(**changed: Any) -> float:
        return host_costs(scenario_of(row | changed, H100)).each_pass

    eager = each_pass(compile=False)
    assert each_pass() - each_pass(packing=True) == pytest.approx(UNEVEN_PASS * eager)
    assert eager == each_pass(compile=False, packing=True)


def test_experts_adapters_are_registered_anew_in_each_forward() -> None:
    """Which takes the host longer than their kernels' launches; a recomputed block does it twice."""
    row = ROW | {"model": "mixtral-8x7b@3"}
    attention = ["q_proj", "k_proj", "v_proj", "o_proj"]
    launches = []
    for targets in ("all-linear", attention):
        scenario = scenario_of(row | {"targets": targets}, H100)
        columns = columns_of(row, scenario.model)
        *_, (_, passes) = stretches.grouped_blocks(setting(scenario, columns), kernels_of(scenario), np.array([2048.0]))
        launches.append(float(np.ravel(passes.forward.launches)[0]))
    # both of the experts' matrices, and the router's
    assert launches[0] - launches[1] > 3 * PARAMETRIZED_OPERATIONS


def test_registering_a_parameter_takes_as_long_as_on_an_h100s_host() -> None:
    """Beyond what an adapter of a linear layer takes, in operations of that very host."""
    pieces = json.loads((BENCHMARKS / "rows/h100-host-pieces.json").read_text())["pieces"]

    def forward(name: str) -> float:
        return float(pieces[f"host {name}"][0])

    registered = forward("PEFT adapter of a stacked parameter") - forward("stacked parameter")
    linear = forward("PEFT adapter") - forward("Linear module")
    operation = np.mean([pieces[f"host {name}"][:2] for name in ("mul", "add", "silu")])
    assert pytest.approx((registered - linear) / operation, abs=0.05) == PARAMETRIZED_OPERATIONS


def test_gemmas_norms_make_one_more_of_their_weight() -> None:
    """Two kernels on a row of numbers, or one where it is in fp32; none where a norm is one kernel."""

    def launches(**changed: Any) -> float:
        row = ROW | {"method": "full", "model": "gemma-2-2b"} | changed
        scenario = scenario_of(row, H100)
        columns = columns_of(row, scenario.model)
        tape = Operations(np.array([2048.0]))
        value = tape.value(scenario.model.hidden_size, setting(scenario, columns).stream, needs_gradient=True)
        norm(tape, setting(scenario, columns), value)
        meter = Meter(scenario, kernels_of(scenario), 1)
        for operation in tape.all:
            FORWARD[operation.kind](operation, meter)
        return float(np.ravel(meter.launches + meter.triton)[0])

    # casts, square, mean and what follows it, both products
    assert launches() == 2 + 1 + 3 + 2 + 2
    assert launches(dtype="fp32") == 1 + 3 + 2 + 1
    assert launches(liger=True) == 1


def test_a_fused_attention_makes_a_boolean_mask_its_own() -> None:
    row = ROW | {"method": "full", "model": "gemma-2-2b", "seq": 8192, "attention": "sdpa"}
    scenario = scenario_of(row, H100)
    launches = []
    for masked in (False, True):
        tape = Operations(np.array([8192.0]))
        heads = tape.value(2048, 2.0, needs_gradient=True)
        tape.apply(2048, 2.0, [heads, heads, heads], kind="attention", sizes=(8.0, 256, masked))
        meter = Meter(scenario, kernels_of(scenario), 1, 8192.0)
        FORWARD["attention"](tape.all[-1], meter)
        launches.append(float(np.ravel(meter.launches)[0]))
    assert launches == [1.0, 1.0 + MASK_LAUNCHES]


def test_what_is_not_turned_is_cast_to_join_what_is() -> None:
    """Pythia turns a quarter of a head, in fp32 where its stream is; Phi all of it."""

    def casts(model: str, dtype: str) -> float:
        row = ROW | {"model": model, "method": "full", "dtype": dtype}
        scenario = scenario_of(row, H100)
        tape, whole = Operations(np.array([2048.0])), 4.0 if dtype == "fp32" else 2.0
        share = 0.25 if model.startswith("pythia") else 1.0
        turned = tape.value(2048 * share, whole, needs_gradient=True)
        tape.apply(2048, whole, [turned], kind="join_rotary")
        meter = Meter(scenario, kernels_of(scenario), 1)
        FORWARD["join_rotary"](tape.all[-1], meter)
        return float(np.ravel(meter.launches)[0]) - 1.0

    assert [casts(m, d) for m in ("pythia-1.4b", "phi-3-mini-4k") for d in ("fp32", "bf16")] == [1.0, 0.0, 0.0, 0.0]


def test_a_router_s_choice_goes_back_in_small_kernels() -> None:
    """As many as torch dispatches (benchmarks/traced_time.py): Qwen 3's block of experts, forward and backward."""
    row = ROW | {"model": "qwen3-30b-a3b@6", "method": "full", "gc": False}
    scenario = scenario_of(row, H100)
    columns = columns_of(row, scenario.model)
    *_, (_, passes) = stretches.grouped_blocks(setting(scenario, columns), kernels_of(scenario), np.array([2048.0]))
    forward, backward = (float(np.ravel(p.launches)[0]) for p in (passes.forward, passes.backward))
    assert (forward, backward) == (pytest.approx(88, abs=6), pytest.approx(169, abs=6))
