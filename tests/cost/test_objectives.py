"""What objectives cost beside imitation: second models, doubled batches, passes without gradients, whole logits."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from asking import LORA, facts
from axoc.ir.plan import Plan
from axoc.search.choose import search
from axoc.spec.load import load_spec
from sharing import costed_once

__all__ = ["costed_once"]

GIB = 1 << 30
LLAMA = "meta-llama/Meta-Llama-3-8B"


@cache
def planned(objective: str, *, strategy: str = "fsdp", adapter: Any = None, more: str = "", **fixed: Any) -> Any:
    """The estimate of one fixed configuration, whether it fits or not."""
    values = {"micro_batch_size": 2, "gradient_accumulation_steps": 1, "gradient_checkpointing": "full"} | fixed
    lines = "".join(f"  {name}: {value}\n" for name, value in values.items())
    text = f"model: {{id: {LLAMA}, kernels: none}}\ndataset: {{path: x.json, max_seq_length: 1024}}\n"
    text += f"training:\n  objective: {objective}\n{lines}{more}"
    made = load_spec(
        f"{text}adapter: {'lora' if adapter else 'none'}\ndistributed: {{type: {strategy}, offload: none}}\n".encode(),
        "spec.yaml",
    )
    found = search(made, facts(made, "h100-sxm-80gb:8"))
    assert isinstance(found, Plan), found
    return found.chosen.estimate


def item(estimate: Any, name: str) -> int:
    return next((i.bytes for i in estimate.memory.ledger if i.item == name), 0)


def phases(estimate: Any) -> dict[str, int]:
    return {p.item: p.bytes for p in estimate.memory.phases}


def test_dpo_needs_more_than_imitation_and_longer() -> None:
    sft, dpo = planned("sft"), planned("dpo")
    assert dpo.memory.peak_allocated_bytes > sft.memory.peak_allocated_bytes
    # twice the tokens, and a third more for the reference's forward: with recomputation 5/4
    assert 2.2 < dpo.time.step_seconds / sft.time.step_seconds < 3.0


def test_the_second_model_is_this_ranks_share_of_the_weights() -> None:
    assert item(planned("dpo"), "reference model") == pytest.approx(8_030_261_248 * 2 / 8, rel=0.01)


def test_an_adapter_is_its_own_reference_but_still_asked() -> None:
    plain, adapted = planned("dpo"), planned("dpo", adapter=LORA)
    assert item(plain, "reference model") > 0 == item(adapted, "reference model")
    assert "reference" in phases(adapted)
    assert adapted.time.breakdown and "passes without gradients" in dict(adapted.time.breakdown)


def test_a_precomputed_reference_costs_no_memory_and_no_time_in_a_step() -> None:
    more = "  preference: {precompute_reference: true}\n"
    held = planned("dpo", adapter=LORA, strategy="ddp")
    asked = planned("dpo", adapter=LORA, strategy="ddp", more=more)
    assert "reference" not in phases(asked) and item(asked, "reference model") == 0
    assert asked.time.step_seconds < held.time.step_seconds


def test_whole_logits_cost_more_than_tiles_of_them() -> None:
    dpo, orpo, simpo = (planned(name, adapter=LORA) for name in ("dpo", "orpo", "simpo"))
    logits = 2 * 2 * 1024 * 128_256
    assert phases(simpo)["loss"] > phases(dpo)["loss"] + 7 * logits  # in fp32, beside a gradient as large
    assert phases(orpo)["loss"] > phases(simpo)["loss"]  # ORPO also imitates the chosen answers


def test_kto_asks_three_times_and_dpo_once() -> None:
    """Of the same number of sequences: a pair is two."""
    kto, dpo = planned("kto", micro_batch_size=4), planned("dpo", micro_batch_size=2)
    passing = [dict(e.time.breakdown)["passes without gradients"] for e in (kto, dpo)]
    assert passing[0] == pytest.approx(3 * passing[1], rel=0.02)


def test_a_reward_model_has_no_logits() -> None:
    reward, simpo = planned("reward"), planned("simpo")
    assert phases(reward)["loss"] < phases(simpo)["loss"] - 2 * 2 * 1024 * 128_256 * 4


def test_what_no_row_was_measured_of_has_a_wider_band() -> None:
    dpo, sft = planned("dpo"), planned("sft")
    assert dpo.memory_error_band > sft.memory_error_band and dpo.memory_error_rows == 0
    assert dpo.time_error_band >= sft.time_error_band


def sampled(generations: int = 8, length: int = 512, **fixed: Any) -> Any:
    more = f"  grpo: {{generations: {generations}, max_completion_length: {length}}}\n"
    return planned("grpo", strategy="ddp", adapter=LORA, more=more, micro_batch_size=8, **fixed)


def test_sampling_keeps_keys_and_values_of_all_completions_of_a_step() -> None:
    one, two = phases(sampled())["generate"], phases(sampled(gradient_accumulation_steps=2))["generate"]
    cache = 8 * 1024 * 2 * 8 * 128 * 2 * 32.5  # sequences x tokens x keys and values of 8 heads in bf16 x layers
    assert two - one > cache


def test_longer_and_more_completions_take_longer() -> None:
    def seconds(estimate: Any) -> float:
        return dict(estimate.time.breakdown)["sampling answers"]

    assert seconds(sampled(length=768)) > 1.3 * seconds(sampled(length=512))
    assert seconds(sampled(gradient_accumulation_steps=8)) > seconds(sampled())


def test_a_step_takes_whole_groups_of_completions() -> None:
    text = f"model: {LLAMA}\ndataset: {{path: x.json}}\ntraining: {{objective: grpo, grpo: {{generations: 12}}}}\n"
    made = load_spec(text.encode(), "spec.yaml")
    found = search(made, facts(made, "h100-sxm-80gb:8"))
    assert isinstance(found, Plan) and found.chosen.candidate.global_batch_size % 12 == 0


def test_the_replay_makes_the_objectives_own_loss() -> None:
    """Reserved of a single candidate comes from a replay: with plain logits it would be gigabytes more."""
    kto, sft = (planned(name, strategy="ddp", adapter=LORA, micro_batch_size=8).memory for name in ("kto", "sft"))
    whole = 8 * 1024 * 128_256 * 4
    assert kto.peak_reserved_bytes < sft.peak_reserved_bytes - whole
    assert kto.peak_reserved_bytes < 1.2 * kto.peak_allocated_bytes
