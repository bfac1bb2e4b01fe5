"""The accelerator catalog: complete, dense, sourced."""

from __future__ import annotations

import pytest
from axoc.facts.accelerators import accelerator_names, find_accelerator, find_driver_name, price_of
from axoc.units import GIB

NAMES = [
    "h100-sxm-80gb",
    "h100-pcie-80gb",
    "h200-sxm-141gb",
    "a100-sxm-80gb",
    "a100-sxm-40gb",
    "a100-pcie-80gb",
    "l4-24gb",
    "l40s-48gb",
    "a10g-24gb",
    "t4-16gb",
    "v100-sxm-32gb",
    "rtx3090-24gb",
    "rtx4090-24gb",
    "rtx5090-32gb",
    "rtx6000-ada-48gb",
    "mi300x-192gb",
    "mi250x-128gb",
    "b200-sxm-180gb",
    "gh200-96gb",
    "cpu",
]
FIGURES = (
    "memory_bytes",
    "memory_bandwidth_bytes_per_second",
    "dense_flops_per_second",
    "link_bandwidth_bytes_per_second",
    "context_bytes",
)


def test_names() -> None:
    assert set(accelerator_names()) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_has_a_source_and_a_sane_size(name: str) -> None:
    entry = find_accelerator(name)
    assert entry is not None
    facts = entry.facts
    assert all(facts.sources[figure] for figure in FIGURES)
    assert set(facts.dense_flops_per_second) <= {"float32", "tf32", "bfloat16", "float16", "fp8"}
    assert "float32" in facts.dense_flops_per_second and entry.node.source
    if name != "cpu":
        label = int(name.rpartition("-")[2].removesuffix("gb")) * 1e9 / (2 if "mi250x" in name else 1)
        assert 0.85 * label < facts.memory_bytes < 1.08 * label
        assert facts.dense_flops_per_second["float16"] >= facts.dense_flops_per_second["float32"]


@pytest.mark.parametrize("name", NAMES)
def test_usable_memory_is_below_what_nvidia_smi_shows(name: str) -> None:
    entry = find_accelerator(name)
    assert entry is not None
    if entry.driver_total_mib:
        assert 0.93 < entry.facts.memory_bytes / (entry.driver_total_mib << 20) < 1


def test_rates_are_dense() -> None:
    expected = {
        "h100-sxm-80gb": 989.4,
        "a100-sxm-80gb": 312,
        "l4-24gb": 121,
        "b200-sxm-180gb": 2250,
        "rtx4090-24gb": 165.2,
    }
    for name, tflops in expected.items():
        entry = find_accelerator(name)
        assert entry is not None
        assert entry.facts.dense_flops_per_second["bfloat16"] == pytest.approx(tflops * 1e12)


def test_no_bfloat16_where_the_hardware_has_none() -> None:
    for name in ("t4-16gb", "v100-sxm-32gb"):
        entry = find_accelerator(name)
        assert entry is not None and "bfloat16" not in entry.facts.dense_flops_per_second


def test_measured_h100() -> None:
    entry = find_accelerator("H100-SXM-80GB")
    assert entry is not None
    assert entry.facts.memory_bytes == 85017493504
    assert entry.facts.context_bytes == 0.75 * GIB


def test_driver_names() -> None:
    assert find_driver_name("NVIDIA H100 80GB HBM3", 81559) == "h100-sxm-80gb"
    assert find_driver_name("NVIDIA A100-SXM4-40GB", 40960) == "a100-sxm-40gb"
    assert find_driver_name("NVIDIA GeForce GTX 1080", 8192) is None


def test_prices_have_a_source_or_say_that_none_is_known() -> None:
    price, source = price_of("h100-sxm-80gb")
    assert price == pytest.approx(6.88) and "2026" in source
    assert price_of("rtx4090-24gb")[0] is None
