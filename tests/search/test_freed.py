"""Accumulation follows memory: what quantization frees is spent on the micro-batch, and the decision says so."""

from __future__ import annotations

import re

import pytest
from asking import LORA, plan
from axoc.ir.plan import Plan
from axoc.ir.request import QuantizationRequest

NF4 = QuantizationRequest(method="nf4")


def planned(inventory: str, model: str = "meta-llama/Meta-Llama-3-8B", **changes: object) -> Plan:
    found = plan(model, inventory, adapter=LORA, **changes)
    assert isinstance(found, Plan)
    return found


def reason(found: Plan, field: str) -> str:
    return {d.field: d for d in found.decisions}[f"training.{field}"].because


@pytest.mark.parametrize(
    ("model", "inventory", "seq", "checkpointing"),
    [("meta-llama/Llama-2-13b-hf", "a100-sxm-40gb", 512, "none"), ("Qwen/Qwen2.5-32B", "h100-sxm-80gb", 4096, "full")],
)
def test_what_nf4_frees_raises_the_micro_batch(model: str, inventory: str, seq: int, checkpointing: str) -> None:
    fixed = {"training__gradient_checkpointing": checkpointing, "dataset__max_seq_length": seq}
    quantized = planned(inventory, model, model__quantization=NF4, **fixed)
    c = quantized.chosen.candidate
    for field in ("micro_batch_size", "gradient_accumulation_steps"):
        said = re.match(
            r"nf4 frees ([\d.]+) GiB: micro-batch (\d+) instead of (\d+), accumulation (\d+) instead of (\d+); ",
            reason(quantized, field),
        )
        assert said, reason(quantized, field)
        micro, exact_micro, accumulation, exact_accumulation = map(int, said.groups()[1:])
        assert (micro, accumulation) == (c.micro_batch_size, c.gradient_accumulation_steps)
        assert micro * accumulation == exact_micro * exact_accumulation == 64 and micro > exact_micro

    def micros(quantization: object) -> dict[int, int]:
        """Bytes by micro-batch of the plans that fit, all else as chosen."""
        found = planned(inventory, model, model__quantization=quantization, **fixed).candidates
        alike = [s for s in found if s.candidate.strategy == c.strategy]
        return {s.candidate.micro_batch_size: s.estimate.memory.device_used_bytes for s in alike}

    exact, freed = micros(None), micros(NF4)
    assert max(exact) == exact_micro < micro <= max(freed)
    assert exact[exact_micro] > freed[exact_micro]


def test_where_exact_weights_fit_nowhere_it_says_so() -> None:
    found = planned("t4-16gb", model__quantization="auto", model__dtype="float16", distributed__mixed_precision="fp16")
    assert found.chosen.candidate.quantization == "nf4"
    assert "exact weights fit with no micro-batch" in reason(found, "micro_batch_size")


def test_what_the_user_set_is_not_explained_away() -> None:
    found = planned("h100-sxm-80gb", model__quantization=NF4, training__micro_batch_size=2)
    assert reason(found, "micro_batch_size") == "set in the spec" or "nf4" not in reason(found, "micro_batch_size")


def test_exact_weights_free_nothing() -> None:
    assert "frees" not in reason(planned("h100-sxm-80gb"), "micro_batch_size")
