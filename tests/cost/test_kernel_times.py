"""Measured kernels beside predicted ones: of a recorded step's trace, and of the planner's count of the same step."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from axoc.cost.time import HOST, optimizer_seconds, step_time
from closed_form import columns_of, scenario_of
from kernel_compare import GROUPS, phases
from kernel_trace import class_of, recorded

MARKS = ["begin", "forward", "between", "backward", "optimizer", "end"]


def kernel(name: str, begin: float, microseconds: float) -> dict[str, Any]:
    return {"ph": "X", "cat": "kernel", "name": name, "ts": begin, "dur": microseconds}


def test_kernels_go_to_the_phase_whose_mark_came_before_them() -> None:
    events = []
    for index, _ in enumerate(MARKS):
        at = 1000.0 * index
        events += [kernel("at::cuda::spin_kernel(long)", at, 2.0), kernel("nvjet_tst_128x256", at + 4, 10.0 + index)]
        events.append(kernel("triton_poi_fused_add_0", at + 16 + index, 5.0))
    found = recorded({"traceEvents": list(reversed(events))}, MARKS)["phases"]
    assert found["backward"]["classes"] == {"product": [13e-6, 1], "fused": [5e-6, 1]}
    assert found["backward"]["busy_s"] == pytest.approx(18e-6)
    assert found["backward"]["gaps_s"] == pytest.approx(2e-6)
    assert found["backward"]["waits_s"] == 0.0


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("void at::native::(anonymous namespace)::multi_tensor_apply_kernel<FusedAdamMathFunctor>", "optimizer"),
        ("void kDequantizeBlockwise<__nv_bfloat16, 512, 64, 8, 2>", "quantization"),
        ("void pytorch_flash::flash_bwd_dq_dk_dv_loop_seqk_parallel_kernel", "attention"),
        ("_rms_norm_backward_kernel", "fused"),
        ("void at::native::unrolled_elementwise_kernel<at::native::direct_copy_kernel_cuda>", "copy"),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add>", "elementwise"),
    ],
)
def test_a_kernel_is_known_by_its_name(name: str, kind: str) -> None:
    assert class_of(name) == kind


def test_predicted_phases_are_those_that_the_step_is_made_of() -> None:
    row = {"model": "llama-3-8b", "method": "lora", "dtype": "bf16", "gc": True, "mbs": 4, "seq": 2048}
    scenario = scenario_of(row, "h100-sxm-80gb")
    columns = columns_of(row, scenario.model)
    step = step_time(scenario, columns)
    found = sum(phase[group] for phase in phases(scenario, columns).values() for group in GROUPS)
    whole = step.step_seconds[0] - step.breakdown[HOST][0] - optimizer_seconds(scenario, columns)[0]
    assert found == pytest.approx(float(whole))
