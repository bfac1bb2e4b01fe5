"""Failures, checkpoints and what both take, against Young's and Daly's own formulas."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from asking import facts, request
from axoc.cost.interruptions import interval_seconds, loss_seconds, save_seconds
from axoc.facts.failures import failure_rate, spot_failure_rate
from axoc.facts.inventory import parse_inventory
from axoc.ir.facts import ClusterFacts
from axoc.ir.plan import Plan
from axoc.search.choose import scenarios, search
from meshes import row

DAY = 86_400.0
LONG = {"training__max_steps": 200_000, "training__micro_batch_size": 1}


def planned(inventory: str = "h100-sxm-80gb:8x8", own: dict[str, Any] | None = None, **changes: Any) -> Plan:
    made = request("meta-llama/Meta-Llama-3-8B", **(LONG | {"distributed__type": "fsdp"} | changes))
    known = facts(made, inventory)
    if own:
        known = replace(known, clusters=tuple(replace(c, **own) for c in known.clusters))
    found = search(made, known)
    assert isinstance(found, Plan)
    return found


def cluster(inventory: str) -> ClusterFacts:
    return parse_inventory(inventory, None, None)[0]


def items(plan: Plan) -> dict[str, float]:
    return {i.item: i.seconds for i in plan.chosen.estimate.time.run_breakdown}


def test_failures_follow_the_accelerators_and_llama_3_is_met() -> None:
    rate = failure_rate(cluster("h100-sxm-80gb:8x2048"))
    assert rate.per_day * 54 == pytest.approx(419, rel=0.001) and "Llama 3" in rate.source
    assert failure_rate(cluster("h100-sxm-80gb:8x1024")).per_day == pytest.approx(rate.per_day / 2)
    assert failure_rate(cluster("cpu:2")).per_day == 0
    assert failure_rate(replace(cluster("h100-sxm-80gb:8x4"), failures_per_node_day=0.5)).per_day == 2.0


def test_spot_nodes_are_taken_away_as_well() -> None:
    own, spot = (rate(cluster("h100-sxm-80gb:8x4")) for rate in (failure_rate, spot_failure_rate))
    assert spot.per_day - own.per_day == pytest.approx(-math.log(0.8) / 30 * 4)
    assert "Spot Instance Advisor" in spot.source


def test_long_runs_on_many_accelerators_save_as_young_and_daly_say() -> None:
    plan = planned()
    step, every = plan.chosen.estimate.time.step_seconds, plan.schedule.save_steps or 0
    bytes_ = 6 * 8_030_261_248  # bf16 weights and both states
    save, between = bytes_ / (2e9 * 8), DAY / (64 * 4.736e-4)
    assert every * step == pytest.approx(math.sqrt(2 * save * between), rel=0.02)
    decision = next(d for d in plan.decisions if d.field == "training.save_steps")
    assert decision.value == every and decision.source == "rule:young-daly"
    assert "64 accelerators fail every" in decision.because and "Llama 3" in decision.because
    assert items(plan)["checkpoints"] == pytest.approx(math.ceil(200_000 / every) * save, rel=0.01)


def test_short_runs_and_set_ones_save_as_before() -> None:
    assert planned(training__max_steps=400).schedule.save_steps == 100
    assert planned(training__save_steps=7).schedule.save_steps == 7
    stopping = planned(training__early_stopping_patience=3, dataset__validation_split=0.1)
    assert stopping.schedule.save_steps == stopping.schedule.eval_steps == 50_000


def test_more_failures_and_slower_storage_change_the_interval_by_their_roots() -> None:
    often = planned(own={"failures_per_node_day": 64 * 4.736e-4 / 8 * 4}).schedule.save_steps
    slow = planned(own={"storage_bytes_per_second": 2e9 / 4}).schedule.save_steps
    usual = planned().schedule.save_steps or 0
    assert often == pytest.approx(usual / 2, rel=0.05) and slow == pytest.approx(usual * 2, rel=0.05)


def test_the_interval_planned_loses_least() -> None:
    """Checkpoints and interruptions together, beside intervals a third as long and three times as long."""
    own = {"failures_per_node_day": 2.0}
    best = planned(own=own).schedule.save_steps or 0
    lost = {}
    for every in (best // 3, best, best * 3):
        found = items(planned(own=own, training__save_steps=every))
        lost[every] = found["checkpoints"] + found["interruptions"]
    assert min(lost, key=lambda n: lost[n]) == best


def test_what_failures_take_is_in_the_time_and_the_money() -> None:
    none, usual, many = (
        planned(own={"failures_per_node_day": n}, training__save_steps=1000).chosen.estimate.time
        for n in (1e-9, 0.01, 0.5)
    )
    assert (none.total_seconds or 0) < (usual.total_seconds or 0) < (many.total_seconds or 0)
    assert (none.cost_usd or 0) < (many.cost_usd or 0)
    assert many.failures_expected == pytest.approx((many.total_seconds or 0) / DAY * 4.0, rel=0.02)
    steady, taken = (
        planned(own={"spot_failures_per_node_day": n}, training__save_steps=1000).chosen.estimate.time
        for n in (1e-9, 5.0)
    )
    assert (steady.spot_cost_usd or 0) < (taken.spot_cost_usd or 0) and steady.cost_usd == taken.cost_usd


def test_a_failure_loses_half_an_interval_and_a_new_start() -> None:
    made = request("meta-llama/Meta-Llama-3-8B", **LONG)
    scenario = scenarios(made, facts(made, "h100-sxm-80gb:8x8"))[0][0].variant(0)
    never = replace(scenario, cluster=replace(scenario.cluster, failures_per_node_day=1e-12))
    assert interval_seconds(never, row(64))[0] > 1e8
    step = np.array([1.0])
    lost = loss_seconds(replace(scenario, save_steps=100), row(64), step)[0]
    assert lost == pytest.approx(50 + 60 + 30 + save_seconds(scenario, row(64))[0])
