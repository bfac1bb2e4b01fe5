"""What the planner takes for granted of attention over documents, against the runtime's own table of backends."""

from __future__ import annotations

from dataclasses import replace

import pytest
from axoc.cost.scenario import BY_DOCUMENT
from axoc.facts import varlen
from axoc.facts.inventory import parse_inventory
from axoc.facts.models import lookup_model
from axoc.spec.model import ATTENTION
from axoc_runtime.attention.backends import BACKENDS, Heads, obstacles

RUNTIME = BACKENDS["varlen"]


def test_backends_that_are_told_of_documents_are_the_runtimes() -> None:
    assert set(BY_DOCUMENT) == {b.name for b in BACKENDS.values() if b.documents == "kernel"}
    assert set(ATTENTION.words) - {"auto"} == set(BACKENDS)


def test_varlens_figures_are_the_runtimes() -> None:
    assert RUNTIME.capability == varlen.CAPABILITY
    assert RUNTIME.head_multiple == varlen.HEAD_MULTIPLE
    assert RUNTIME.head_max == varlen.HEAD_MAX
    assert not RUNTIME.softcapping and not RUNTIME.dropout and RUNTIME.grouped and RUNTIME.sliding_window


def test_flash_4_does_what_varlen_does_from_hopper_on() -> None:
    backend = BACKENDS[varlen.FLASH_4]
    assert backend.capability == varlen.FLASH_4_CAPABILITY
    for field in (
        "documents",
        "dtypes",
        "head_multiple",
        "head_max",
        "softcapping",
        "dropout",
        "grouped",
        "sliding_window",
    ):
        assert getattr(backend, field) == getattr(RUNTIME, field), field


@pytest.mark.parametrize("head", [60, 64, 256, 264])
@pytest.mark.parametrize("cap", [None, 50.0])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("inventory", ["h100-sxm-80gb", "t4-16gb", "cpu"])
def test_the_planner_packs_where_the_runtimes_kernel_runs_and_nowhere_else(
    head: int, cap: float | None, dtype: str, inventory: str
) -> None:
    model, _ = lookup_model("meta-llama/Llama-3.2-1B", None, None, "auto")
    accelerator = parse_inventory(inventory, None, None)[0].accelerator
    capability = None if accelerator.vendor == "cpu" else accelerator.compute_capability
    there = obstacles(RUNTIME, Heads(size=head, softcapping=cap), dtype, capability)
    here = varlen.obstacles(replace(model, head_dim=head, attention_softcapping=cap), accelerator, dtype)
    assert bool(here) == bool(there)
