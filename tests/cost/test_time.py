"""Step time: measured kernels give their own seconds, sums of them a block's, and the host's launches their share."""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axoc.cost import stretches
from axoc.cost.activations import setting
from axoc.cost.columns import Columns
from axoc.cost.datasheet import Datasheet
from axoc.cost.kernels import kernels_of
from axoc.cost.launching import host_costs
from axoc.cost.measured import Measured
from axoc.cost.surfaces import Curve, Surface
from axoc.cost.time import TimeColumns, orthogonalization_seconds, step_time
from axoc.facts.catalog import entry_files
from axoc.facts.profile import parse_profile, shipped_profile

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from closed_form import columns_of, scenario_of
from time_accuracy import BUILT, predict, timed, without_profile

H100 = "h100-sxm-80gb"
FILE = files("axoc.facts").joinpath("calibration", f"{H100}.json")
ROW = {"model": "llama-3.2-1b", "method": "full", "dtype": "fp32", "gc": True, "mbs": 4, "seq": 2048}


def timed_step(inventory: str = H100, **changed: Any) -> TimeColumns:
    row = ROW | changed
    scenario = scenario_of(row, inventory)
    return step_time(scenario, columns_of(row, scenario.model))


def seconds(**changed: Any) -> float:
    return float(timed_step(**changed).step_seconds[0])


def measured_kernels() -> Measured:
    found = kernels_of(scenario_of(ROW, H100))
    assert isinstance(found, Measured)
    return found


# --- look-ups


def test_a_measured_product_takes_its_own_seconds() -> None:
    """At the clock of a device that runs on: the long ones were measured at it."""
    kernels = measured_kernels()
    rows = shipped_profile(H100).tables["matmul"].where(dtype="bf16").rows  # type: ignore[union-attr]
    for _, layout, m, n, k, expected in rows[::40]:
        found = kernels.matmul(layout, m, n, k, 2.0)[0] / expected
        if not 1e-3 < expected < 2e-3:
            assert found == pytest.approx(kernels.sustained if expected <= 1e-3 else 1.0, rel=1e-6)
        assert 1.0 - 1e-6 < found < kernels.sustained + 1e-6


def test_a_product_between_measured_ones_is_as_efficient_as_they_are() -> None:
    kernels = measured_kernels()
    rates = [2 * t * 4096 * 14336 / kernels.matmul("nt", t, 14336, 4096, 2.0)[0] for t in (4096, 6000, 8192)]
    assert min(rates[0], rates[2]) * 0.97 < rates[1] < max(rates[0], rates[2]) * 1.03


def test_a_long_product_is_as_slow_as_the_short_ones_it_is_told_by_when_they_run_on() -> None:
    """Four times as many tokens as the longest measured product of a block has, which is over in less than a millisecond."""
    kernels = measured_kernels()
    cold = Measured(kernels.profile, kernels.datasheet)
    cold.__dict__["sustained"] = 1.0
    running, short = (k.matmul("nt", 65536.0, 8192.0, 2048.0, 2.0)[0] for k in (kernels, cold))
    assert short > 2e-3, "as long as those that were measured at the lower clock already"
    assert 1.01 < running / short < kernels.sustained


def test_surfaces_keep_their_points_and_stay_between_them() -> None:
    sizes = np.array([[1.0], [4.0], [16.0]])
    surface = Surface.over(sizes, np.array([2.0, 4.0, 32.0]), np.array([1.0, 4.0, 16.0]))
    assert surface.seconds(sizes, np.array([1.0, 4.0, 16.0])) == pytest.approx([2.0, 4.0, 32.0])
    assert 8.0 <= surface.seconds(np.array([[8.0]]), np.array([8.0]))[0] <= 16.0


def test_curves_go_on_in_proportion_beyond_what_was_measured() -> None:
    curve = Curve.of([10.0, 100.0], [2.0, 8.0])
    assert curve.at(np.array([10.0, 100.0, 400.0])) == pytest.approx([2.0, 8.0, 32.0])
    assert curve.at(np.array([1.0]))[0] == pytest.approx(2.0)


def test_a_profile_of_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match="version 2, not 1"):
        parse_profile("x", json.dumps(json.loads(FILE.read_text()) | {"schema_version": 2}))


# --- sums


@pytest.mark.parametrize(
    ("case", "changed"),
    [
        ("llama-3.2-1b block, fp32 weights, 4 x 2048", {}),
        ("llama-3-8b block, bf16 weights, 1 x 2048", {"model": "llama-3-8b", "dtype": "bf16", "mbs": 1}),
        ("llama-3-8b block, bf16 weights, 4 x 2048", {"model": "llama-3-8b", "dtype": "bf16"}),
    ],
)
def test_a_blocks_kernels_add_up_to_the_block_as_measured(case: str, changed: dict[str, Any]) -> None:
    """The profile's check: whole blocks, timed with the device kept busy, on another card of the same kind."""
    row = ROW | changed
    scenario = scenario_of(row, H100)
    kernels = measured_kernels()
    s = setting(scenario, columns_of(row, scenario.model))
    [(_, passes)] = stretches.grouped_blocks(s, kernels, np.array([float(row["mbs"] * row["seq"])]))
    measured = {c["pass"]: c for c in json.loads(FILE.read_text())["check"] if c["case"] == case}
    arithmetic = ("matrix products", "attention")  # whose clock falls later than a short check shows
    forward, both = (
        sum(
            float(s[0]) / (kernels.sustained if part in arithmetic else 1.0)
            for p in found
            for part, s in p.device.items()
        )
        for found in ([passes.forward], [passes.forward, passes.backward])
    )
    assert forward == pytest.approx(measured["forward"]["measured_seconds"], rel=0.03)
    assert both == pytest.approx(measured["forward and backward"]["measured_seconds"], rel=0.05)
    assert passes.forward.launches == pytest.approx(measured["forward"]["operations"], abs=3)


def test_rows_on_one_gpu_are_predicted_within_a_few_percent() -> None:
    """Of those the model was built with, so it shows only that nothing broke; what it is worth, rows that judge say. Where
    they wait for the host, that was a slower one than the profile's."""
    found = [predict(row) for row in timed(BUILT["built"]) if not row.get("zero")]
    assert statistics.mean(abs(p.error()) for p in found) < 0.07
    assert statistics.mean(abs(p.error()) for p in found if p.waits() < 0.02) < 0.05
    assert statistics.mean(abs(p.error(profiled=False)) for p in found) < 0.09


def test_parts_add_up_to_the_step() -> None:
    for changed in ({}, {"method": "lora", "dtype": "bf16", "mbs": 1}, {"ga": 4, "liger": True}):
        found = timed_step(**changed)
        assert sum(float(v[0]) for v in found.breakdown.values()) == pytest.approx(float(found.step_seconds[0]))
        assert all(v[0] >= -1e-12 for v in found.breakdown.values()), found.breakdown


@pytest.mark.parametrize("inventory", [H100, "a100-sxm-80gb", "cpu"])
def test_more_work_takes_longer(inventory: str) -> None:
    def step(**changed: Any) -> float:
        return seconds(inventory=inventory, **changed)

    assert step(mbs=1) < step(mbs=2) < step(mbs=8) < step(mbs=32)
    assert step(seq=1024) < step(seq=2048) < step(seq=4096)
    assert step(model="llama-3-8b@2") < step(model="llama-3-8b@4") < step(model="llama-3-8b@16")
    assert step(gc=False) < step(gc=8) < step(gc=True)
    assert 1.5 * step(mbs=2) < step(mbs=2, ga=2) < 2 * step(mbs=2)
    assert step(model="llama-3-8b@4") < step(model="qwen2.5-14b@4")


@pytest.mark.parametrize("liger", [False, True])
def test_many_candidates_at_once_take_what_each_takes_alone(liger: bool) -> None:
    scenario = scenario_of(ROW | {"dtype": "bf16", "model": "qwen3-0.6b", "liger": liger}, f"{H100}:8")
    rows = [
        (1, 8, 1, 1, 1, 1, 0), (5, 4, 2, 1, 4, 2, 28), (2, 8, 1, 1, 4, 1, 10), (1, 2, 4, 1, 16, 8, 28), (4, 8, 1, 2, 1, 4, 0),
    ]  # fmt: skip
    names = (
        "strategy", "data_parallel", "tensor_parallel", "replicate_degree", "micro_batch", "accumulation", "checkpointed_layers",
    )  # fmt: skip
    all_rows = {n: np.array([r[i] for r in rows]) for i, n in enumerate(names)} | {
        "offload": np.zeros(5, dtype=np.int64)
    }
    together = step_time(scenario, Columns(**all_rows)).step_seconds
    for i in range(len(rows)):
        alone = step_time(scenario, Columns(**{n: v[i : i + 1] for n, v in all_rows.items()})).step_seconds
        assert together[i] == pytest.approx(alone[0], rel=2e-3)  # rows' widths are looked up for the widest of a column


# --- what is counted


def passes_of(**changed: Any) -> stretches.Passes:
    row = ROW | changed
    scenario = scenario_of(row, H100)
    s = setting(scenario, columns_of(row, scenario.model))
    *_, (_, found) = stretches.grouped_blocks(s, kernels_of(scenario), np.array([8192.0]))
    return found


def test_recomputing_stops_before_the_last_product() -> None:
    found = passes_of()
    down = measured_kernels().matmul("nt", 8192, 2048, 8192, 2.0)[0]
    saved = found.forward.device["matrix products"] - found.again.device["matrix products"]
    assert saved[0] == pytest.approx(down)


def test_a_frozen_weight_has_no_gradient() -> None:
    full, lora = passes_of(dtype="bf16"), passes_of(dtype="bf16", method="lora", targets=["q_proj"])
    share = float((lora.backward.device["matrix products"] / full.backward.device["matrix products"])[0])
    assert 0.48 < share < 0.58
    assert lora.forward.adapted == 1 and full.forward.adapted == 0


def test_muon_pays_for_fifteen_products_of_each_matrix() -> None:
    """Llama 3 8B: 4,096 wide; 32 blocks, each with 2 square matrices, 2 of 1,024 and 3 of 14,336."""
    scenario = scenario_of(ROW | {"model": "llama-3-8b", "dtype": "bf16", "optim": "muon"}, H100)
    flops = (
        32
        * 5
        * sum(
            count * (4 * a * a * b + 2 * a**3) for count, a, b in ((2, 4096, 4096), (2, 1024, 4096), (3, 4096, 14336))
        )
    )
    rate = flops / orthogonalization_seconds(scenario)
    assert 400e12 < rate < 800e12
    assert orthogonalization_seconds(without_profile(scenario)) == pytest.approx(flops / (0.72 * 989.4e12), rel=0.05)


def test_small_batches_wait_for_the_host_and_large_ones_do_not() -> None:
    waits = [timed_step(mbs=n).breakdown["waiting for the host"][0] for n in (1, 8)]
    assert waits[0] > 10 * waits[1] > 0


def test_liger_launches_less_but_from_python() -> None:
    plain, liger = passes_of(), passes_of(liger=True)
    assert liger.forward.launches < 0.5 * plain.forward.launches
    assert liger.forward.triton > 0 == plain.forward.triton


@pytest.mark.parametrize("name", entry_files())
def test_every_model_of_the_catalog_can_be_timed(name: str) -> None:
    model = name.removesuffix(".json")
    for changed in ({}, {"dtype": "bf16", "attention": "eager"}, {"method": "lora", "liger": True, "dtype": "bf16"}):
        found = seconds(model=model, mbs=1, seq=512, **changed)
        assert 0 < found < 1000
    assert seconds(model=model, mbs=1, seq=512, method="qlora", dtype="nf4", dropout=0.1) > 0


def test_attention_is_told_by_heads_of_its_size() -> None:
    """Between 8,192 and 32,768 tokens a row, heads of 64 stay at their own rate: those of 128 are a third faster by the FLOP."""
    kernels = measured_kernels()
    flops = 0.5 * 4.0 * 32 * 64
    rates = []
    for seq in (8192.0, 16384.0, 32768.0):
        seconds = kernels.attention(1.0, 32.0, 8.0, 64.0, seq, masked=False, backward=False, fused=True)
        rates.append(flops * seq**2 / float(seconds[0]))
    assert rates == pytest.approx([rates[1]] * 3, rel=0.1)


# --- without a profile


def test_the_datasheet_stands_in_where_there_is_no_profile() -> None:
    scenario = scenario_of(ROW, H100)
    assert isinstance(kernels_of(scenario_of(ROW, "a100-sxm-80gb")), Datasheet)
    bare = without_profile(scenario)
    assert isinstance(kernels_of(bare), Datasheet)
    columns = columns_of(ROW, scenario.model)
    assert step_time(bare, columns).step_seconds[0] == pytest.approx(
        step_time(scenario, columns).step_seconds[0], rel=0.15
    )


def test_compiled_models_launch_less() -> None:
    scenario = scenario_of(ROW, H100)
    eager, compiled = host_costs(scenario), host_costs(replace(scenario, compile=True))
    assert compiled.operation < 0.5 * eager.operation


def test_adapters_of_experts_make_their_weights_anew_and_read_the_gradients_of_them() -> None:
    """Eight bytes an element forward, two baddbmm of a copy and a product each, and two of each gradient backward, in 16 bits."""
    row = {"model": "mixtral-8x7b@3", "method": "lora", "dtype": "bf16", "gc": False, "mbs": 1, "seq": 1024}
    whole, attention = (
        timed_step(**row, targets=targets) for targets in ("all-linear", ["q_proj", "k_proj", "v_proj", "o_proj"])
    )
    elements = 3 * 8 * 3 * 4096 * 14336
    kernels = kernels_of(scenario_of(ROW | row, H100))
    least = float(kernels.moved(np.array([10.0 * 2 * elements]))[0])
    more = whole.breakdown["memory-bound kernels"][0] - attention.breakdown["memory-bound kernels"][0]
    assert least < more < 1.3 * least


def test_a_vocabulary_that_lies_odd_in_memory_takes_slow_kernels() -> None:
    """A width between the measured ones: GPT-2 medium's logits, 1.5 ms if they were like those of 50,304 words."""
    kernels = measured_kernels()
    for layout, odd, even in (
        ("nt", (8192, 50257, 1024), (8192, 50304, 1024)),
        ("nn", (8192, 1024, 50257), (8192, 1024, 50304)),
        ("tn", (50257, 1024, 8192), (50304, 1024, 8192)),
    ):
        assert kernels.matmul(layout, *odd, 2.0)[0] > 3.5 * kernels.matmul(layout, *even, 2.0)[0]


def test_ligers_norms_take_longer_backward_than_their_bytes() -> None:
    """8,192 rows of 1,024, weights trained: 52 microseconds and a sum of 6 (rows/h100-kernel-times.jsonl.xz, qwen3-liger)."""
    kernels = measured_kernels()
    found = float(kernels.liger("rms_norm", 8192.0, 1024.0, 2.0, passes=3.0, backward=True)[0])
    assert found == pytest.approx(58e-6, rel=0.15)
    assert found > 2.5 * float(kernels.moved(np.array([3 * 2 * 8192 * 1024.0]))[0])


def test_exact_products_go_at_their_own_rate() -> None:
    """fp32 without tf32: of a shape far from those measured, too, such as the batched products of plain attention."""
    kernels, scores = measured_kernels(), 142.0 * 2048
    flops = 2.0 * scores * 2048 * 64
    seconds = float(kernels.matmul("nn", scores, 2048.0, 64.0, 4.0)[0])
    assert flops / 66.9e12 < seconds < 2 * flops / 66.9e12 + scores * 2048 * 4 / 2e12
