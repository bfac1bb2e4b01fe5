"""What a plan is chosen for, and that nothing in the output beats it at that."""

from __future__ import annotations

from dataclasses import replace

import pytest
from asking import LORA, facts, plan, request
from axoc.emit.job import job_dict
from axoc.emit.replan import training_contract
from axoc.errors import UserError
from axoc.ir.plan import Plan, Scored
from axoc.search.choose import all_passes, search, settled
from axoc.search.objective import TIE_SHARE
from axoc.spec.load import load_spec
from hypothesis import given, settings
from hypothesis import strategies as st

SEVERAL = "l40s-48gb:2,h100-sxm-80gb:2,a100-sxm-80gb:2"


def made_for(objective: str, usd_per_hour: float | None = None, inventory: str = SEVERAL, **changes: object) -> Plan:
    policy = {"policy__objective": objective, "policy__usd_per_hour": usd_per_hour}
    found = plan("meta-llama/Llama-3.2-1B", inventory, **policy, **changes)
    assert isinstance(found, Plan)
    return found


def value(scored: Scored, objective: str, usd_per_hour: float | None) -> float:
    time = scored.estimate.time
    assert time.total_seconds is not None and time.cost_usd is not None
    hours = time.total_seconds / 3600
    return {"time": hours, "cost": time.cost_usd, "trade-off": time.cost_usd + (usd_per_hour or 0) * hours}[objective]


def slack(scored: Scored, objective: str, usd_per_hour: float | None) -> float:
    """TIE_SHARE of what training alone comes to: the whole's share of it."""
    time = scored.estimate.time
    training = next(i.seconds for i in time.run_breakdown if i.item == "training")
    return TIE_SHARE * value(scored, objective, usd_per_hour) * training / (time.total_seconds or 1)


@settings(max_examples=8)
@given(
    model=st.sampled_from(["Qwen/Qwen2.5-0.5B", "meta-llama/Llama-3.2-1B", "mistralai/Mistral-7B-v0.1"]),
    inventory=st.sampled_from(["h100-sxm-80gb", SEVERAL, "a10g-24gb:8,h100-sxm-80gb"]),
    objective=st.sampled_from([("time", None), ("cost", None), ("trade-off", 1.0), ("trade-off", 500.0)]),
    rows=st.sampled_from([500, 50_000]),
    lora=st.booleans(),
)
def test_no_candidate_in_the_output_dominates_the_plan(
    model: str, inventory: str, objective: tuple[str, float | None], rows: int, lora: bool
) -> None:
    changes = {
        "policy__objective": objective[0],
        "policy__usd_per_hour": objective[1],
        "adapter": LORA if lora else None,
    }
    found = plan(model, inventory, rows, dataset__validation_split=0.1, **changes)
    if not isinstance(found, Plan):
        return
    mine = value(found.chosen, *objective)
    for other in (*found.candidates, *found.pareto):
        assert mine <= value(other, *objective) + slack(other, *objective) + 1e-9


@settings(max_examples=4)
@given(inventory=st.sampled_from([SEVERAL, "h100-sxm-80gb:4"]), lora=st.booleans())
def test_the_order_is_total(inventory: str, lora: bool) -> None:
    made = request("Qwen/Qwen2.5-0.5B", adapter=LORA if lora else None)
    known = facts(made, inventory)
    passes = all_passes(made, known)
    ranked = [(passes.index(p), r) for p, r in settled(made, passes)]
    assert len(set(ranked)) == len(ranked) == sum(int(p.fits().sum()) for p in passes)
    turned = all_passes(made, replace(known, clusters=known.clusters[::-1]))
    again = [(len(passes) - 1 - turned.index(p), r) for p, r in settled(made, turned)]
    assert again == ranked  # nothing equal is left to the order of the inventory here


def test_no_point_of_the_front_is_beaten_by_a_candidate() -> None:
    found = made_for("cost")

    def point(s: Scored) -> tuple[float, float, int]:
        time = s.estimate.time
        assert time.total_seconds is not None and time.cost_usd is not None
        return time.total_seconds, time.cost_usd, s.estimate.memory.device_used_bytes

    assert len(found.pareto) > 2
    for one in map(point, found.pareto):
        for other in map(point, (*found.candidates, *found.pareto)):
            assert other == one or any(a > b for a, b in zip(other, one, strict=True))


def test_time_buys_the_faster_kind_and_money_the_cheaper() -> None:
    fast, cheap = made_for("time").chosen, made_for("cost").chosen
    assert (fast.candidate.accelerator, cheap.candidate.accelerator) == ("h100-sxm-80gb", "l40s-48gb")
    assert (fast.estimate.time.total_seconds or 0) < (cheap.estimate.time.total_seconds or 0)
    assert (fast.estimate.time.cost_usd or 0) > (cheap.estimate.time.cost_usd or 0)


def test_a_dear_hour_turns_the_trade_off() -> None:
    assert made_for("trade-off", 0.01).chosen.candidate.accelerator == "l40s-48gb"
    assert made_for("trade-off", 10_000.0).chosen.candidate.accelerator == "h100-sxm-80gb"


def test_left_open_it_is_cost_across_kinds_and_time_on_one() -> None:
    several, one = made_for("auto"), made_for("auto", inventory="h100-sxm-80gb:2")
    assert (several.objective, one.objective) == ("cost", "time")
    decided = {d.field: d for d in several.decisions}["policy.objective"]
    assert decided.value == "cost" and decided.because and decided.source == "default"


def test_limits_of_the_policy_are_kept_where_a_plan_can_keep_them() -> None:
    fast = made_for("time")
    limit = (fast.chosen.estimate.time.cost_usd or 0) * 0.95
    kept = made_for("time", policy__max_cost_usd=limit)
    assert (kept.chosen.estimate.time.cost_usd or 0) <= limit
    assert kept.chosen.candidate.accelerator != fast.chosen.candidate.accelerator


def test_a_trade_off_needs_prices() -> None:
    with pytest.raises(UserError, match="no price is known for rtx4090-24gb"):
        made_for("trade-off", 5.0, inventory="rtx4090-24gb")


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("time", ("time", None)),
        ("cost", ("cost", None)),
        ("{usd_per_hour: 50}", ("trade-off", 50.0)),
        ("auto", ("auto", None)),
    ],
)
def test_the_spec_says_it(text: str, read: tuple[str, float | None]) -> None:
    policy = load_spec(f"model: a/b\npolicy: {{objective: {text}}}\n".encode(), "s.yaml").policy
    assert (policy.objective, policy.usd_per_hour) == read


@pytest.mark.parametrize("text", ["speed", "{usd_per_hour: 0}", "{usd_an_hour: 3}", "{}", "[time]"])
def test_other_objectives_are_refused_with_a_fix(text: str) -> None:
    with pytest.raises(UserError, match=r"policy\.objective") as caught:
        load_spec(f"model: a/b\npolicy: {{objective: {text}}}\n".encode(), "s.yaml")
    assert caught.value.diagnostics


def test_kinds_are_compared_at_one_global_batch() -> None:
    made = request("meta-llama/Llama-3.2-1B", training__max_steps=10)
    known = facts(made, "h100-sxm-80gb:8x16,a100-sxm-80gb:8x4")
    assert {p.total for p in all_passes(made, known)} == {128}
    assert isinstance(search(made, known), Plan)


def test_optimizer_left_open_takes_the_states_that_the_objective_prefers_and_says_why() -> None:
    roomy = plan("meta-llama/Llama-3.2-3B", "h100-sxm-80gb", training__optimizer="auto")
    tight = plan(
        "meta-llama/Llama-3.2-3B", "h100-sxm-80gb", training__optimizer="auto",
        distributed__memory_budget_per_gpu_bytes=26 << 30,
    )  # fmt: skip
    assert isinstance(roomy, Plan) and isinstance(tight, Plan)
    assert roomy.chosen.candidate.optimizer == "adamw_torch_fused"
    assert tight.chosen.candidate.optimizer == "adamw_bnb_8bit"
    (why,) = (d.because for d in tight.decisions if d.field == "training.optimizer")
    assert "the best plan with adamw_torch_fused takes" in why
    for found in (roomy, tight):
        assert training_contract(found)["optimizer"] == found.chosen.candidate.optimizer
        assert job_dict(found)["training"]["optimizer"] == found.chosen.candidate.optimizer
        alike = {c.candidate.optimizer for c in found.candidates if c.estimate.time == found.chosen.estimate.time}
        assert "adamw_torch_fused" in alike or found is tight, "as fast: the exact states"
