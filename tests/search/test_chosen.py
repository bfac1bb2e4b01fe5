"""A plan's chosen candidate, costed again, takes what was planned."""

from __future__ import annotations

from pathlib import Path

import pytest
from axoc import driver
from axoc.cost.time import step_time
from axoc.ir.plan import Plan
from axoc.search.chosen import scenario_of_plan

SPECS = Path(__file__).resolve().parents[2] / "specs"


@pytest.mark.parametrize("inventory", ["h100-sxm-80gb:8", "l4-24gb:4"])
def test_it_takes_the_planned_step(inventory: str) -> None:
    plan = driver.plan(SPECS / "quickstart.yaml", inventory).result
    assert isinstance(plan, Plan)
    scenario, columns = scenario_of_plan(plan)
    assert float(step_time(scenario, columns).step_seconds[0]) == pytest.approx(plan.chosen.estimate.time.step_seconds)
