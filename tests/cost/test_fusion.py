"""Compiled blocks: what lies between matrix products is read and written once, and nothing more."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axoc.cost import blocks, fusion, stretches, walks
from axoc.cost.activations import setting
from axoc.cost.kernels import kernels_of
from axoc.cost.layers import Setting
from axoc.cost.meter import PRODUCTS
from axoc.cost.operations import Operations
from axoc.cost.time import step_time
from axoc.cost.whole_run import compilation_seconds

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from closed_form import columns_of, scenario_of

ROW: dict[str, Any] = {
    "model": "llama-3-8b", "method": "full", "dtype": "bf16", "gc": False, "mbs": 2, "seq": 2048, "packing": True,
    "compile": True,
}  # fmt: skip
TOKENS = 4096.0
HIDDEN, WIDE, KEYS = 4096 * 2 * TOKENS, 14336 * 2 * TOKENS, 1024 * 2 * TOKENS
"""Bytes of the stream, of the MLP's inner tensors, and of the keys."""


def recorded(**changed: Any) -> tuple[Setting, Operations, Any]:
    row = ROW | changed
    scenario = scenario_of(row, "h100-sxm-80gb")
    s = setting(scenario, columns_of(row, scenario.model))
    tape = Operations(np.array([TOKENS]))
    entered = tape.value(scenario.model.hidden_size, s.stream)
    return s, tape, blocks.block(tape, s, entered, blocks.groups(scenario)[0][0])


def test_a_llama_block_is_six_kernels_beside_its_products() -> None:
    """Norm; queries turned; keys turned; sum and norm; the gated product; the last sum."""
    _, tape, output = recorded()
    found = [float(fusion.forward_bytes(g)[0]) for g in fusion.groups(tape.all, output)]
    assert sorted(found) == sorted(
        [2 * HIDDEN, 2 * HIDDEN, 2 * KEYS, 4 * HIDDEN, 3 * WIDE, 3 * HIDDEN]
    )  # norm, queries, keys, sum and norm, gated, sum


def test_each_gradient_is_written_once_and_those_of_one_tensor_are_added_on_the_way() -> None:
    s, tape, output = recorded()
    groups = fusion.groups(tape.all, output)
    gated = next(g for g in groups if any(o.kind == "liger_gated" for o in g.operations))
    assert float(fusion.backward_bytes(gated, trained=True)[0]) == 5 * WIDE  # its gradient, gate, up; two gradients
    last = groups[-1]
    assert float(fusion.backward_bytes(last, trained=True)[0]) == 3 * HIDDEN
    assert s.compiled


def test_what_is_made_of_a_frozen_product_is_computed_where_the_adapter_is_added() -> None:
    """bitsandbytes' product is cast and PEFT's copy made of it: neither is a tensor in compiled code."""
    _, tape, output = recorded(method="qlora", dtype="nf4")
    found = fusion.groups(tape.all, output)
    assert all({op.kind for op in group.operations} - fusion.INLINED for group in found)
    turned = next(g for g in found if any(op.kind == "liger_rope" for op in g.operations))
    # read: the product and the adapter's; written: the turned queries, all in bf16
    assert float(np.ravel(fusion.forward_bytes(turned))[0]) == 3 * HIDDEN


@pytest.mark.parametrize("compiled", [False, True])
def test_a_compiled_block_is_recomputed_whole_an_eager_one_until_its_last_product(compiled: bool) -> None:
    scenario = scenario_of(ROW | {"compile": compiled}, "h100-sxm-80gb")
    s, kernels = setting(scenario, columns_of(ROW, scenario.model)), kernels_of(scenario)
    counted = stretches.block(s, kernels, np.array([TOKENS]), blocks.groups(scenario)[0][0])
    left_out = counted.forward.device[PRODUCTS] - counted.again.device[PRODUCTS]
    last = kernels.matmul("nt", TOKENS, 4096.0, 14336.0, 2.0)
    assert left_out == pytest.approx(0.0 if compiled else last)


@pytest.mark.parametrize("changed", [{}, {"method": "lora"}, {"method": "qlora", "dtype": "nf4"}, {"dtype": "fp32"}])
@pytest.mark.parametrize("gc", [False, True])
def test_compiled_code_moves_less_and_computes_the_same(changed: dict[str, Any], gc: bool) -> None:
    both = []
    for compiled in (True, False):
        row = ROW | changed | {"gc": gc, "compile": compiled, "kernels": "liger"}
        scenario = scenario_of(row, "h100-sxm-80gb")
        both.append(step_time(scenario, columns_of(row, scenario.model)).breakdown)
    fused, liger = both
    if gc:  # recomputed whole
        assert fused["matrix products"][0] > liger["matrix products"][0]
    else:
        assert fused["matrix products"][0] == pytest.approx(liger["matrix products"][0])
    assert fused["attention"][0] == pytest.approx(liger["attention"][0])
    last_sum = 1.01 if gc else 1.0  # an eager block's second forward stops before it
    assert fused["memory-bound kernels"][0] < last_sum * liger["memory-bound kernels"][0]
    if changed.get("method"):  # an adapter is many small kernels, which fuse
        assert fused["memory-bound kernels"][0] < 0.6 * liger["memory-bound kernels"][0]


MEASURED = {
    # benchmarks/packed_step.py on an H100: milliseconds of a step of packed chat-like rows
    "1b, Liger": ({"model": "llama-3.2-1b", "mbs": 8, "compile": False, "kernels": "liger"}, 250.9),
    "1b, compiled": ({"model": "llama-3.2-1b", "mbs": 8, "kernels": "liger"}, 250.4),
    "1b in fp32, compiled": ({"model": "llama-3.2-1b", "mbs": 8, "kernels": "liger", "dtype": "fp32"}, 290.6),
    "8b LoRA, Liger": ({"method": "lora", "mbs": 4, "gc": True, "compile": False, "kernels": "liger"}, 935.4),
    "8b LoRA, compiled": ({"method": "lora", "mbs": 4, "gc": True, "kernels": "liger"}, 744.0),
    "8b LoRA, compiled, kept": ({"method": "lora", "mbs": 4, "kernels": "liger"}, 521.3),
}


@pytest.mark.parametrize("name", MEASURED)
def test_packed_steps_take_what_was_measured_but_for_a_few_percent(name: str) -> None:
    """Looked at while the terms were made, so this guards against regressions and proves no accuracy. Of a plain loop: the
    Trainer's walks through the modules are left out."""
    changed, milliseconds = MEASURED[name]
    row = ROW | changed | {"lengths": "chat"}
    scenario = scenario_of(row, "h100-sxm-80gb")
    trainer = walks.each_micro_step(scenario) + 2 * walks.each_pass(scenario)
    found = float(step_time(scenario, columns_of(row, scenario.model)).step_seconds[0]) - trainer
    assert 1e3 * found == pytest.approx(milliseconds, rel=0.1)


def test_what_compiling_takes_is_that_of_each_kind_of_block() -> None:
    one = scenario_of(ROW, "h100-sxm-80gb")
    assert compilation_seconds(replace(one, compile=False)) == 0
    assert 0 < compilation_seconds(one) < compilation_seconds(replace(one, evaluates=True))
    lora = scenario_of(ROW | {"method": "lora"}, "h100-sxm-80gb")  # the first block's input needs no gradient
    assert compilation_seconds(lora) == 2 * compilation_seconds(one)
