"""Each rule refuses a bad spec, and lets the same spec pass once its fix is made."""

from __future__ import annotations

from dataclasses import replace

import pytest
from asking import facts, plan, request
from axoc.ir.plan import NoPlan, Plan
from axoc.search import passes
from axoc.search.choose import search
from axoc.search.rules import BUILT_IN, PINS, enforced_rules
from search.rules.cases import CASES, EIGHT, QWEN, Case

RULES = {rule.id: rule for rule in BUILT_IN}
ARITHMETIC = ("batch-arithmetic",)
"""Refused by the search itself."""


def planned(case: Case, *, good: bool) -> Plan | NoPlan:
    inventory = (case.good_inventory if good else None) or case.inventory
    return plan(case.model, inventory, **case.keeps | case.bad | (case.fixed if good else {}))


def refused_by(result: Plan | NoPlan) -> set[str]:
    return {rejection.rule for rejection in result.rejections}


def named(case: Case) -> str:
    return "-".join([case.rule, *map(str, case.pitfalls)])


@pytest.mark.parametrize("case", CASES, ids=named)
def test_a_bad_spec_is_refused_and_a_good_one_passes(case: Case) -> None:
    """With all rules, as a user meets them. What the pinned versions can do is not refused any more."""
    bad, good = planned(case, good=False), planned(case, good=True)
    assert isinstance(good, Plan), refused_by(good)
    if case.rule in ARITHMETIC or RULES[case.rule].enforced:
        assert isinstance(bad, NoPlan)
        assert case.shadowed or case.rule in refused_by(bad)
    else:
        assert isinstance(bad, Plan), refused_by(bad)


@pytest.mark.parametrize("case", [c for c in CASES if c.rule in RULES], ids=named)
def test_a_rule_does_so_by_itself(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """With this rule alone, also where another one would come first, or where the pinned versions no longer fail."""
    rule = RULES[case.rule]
    monkeypatch.setattr(passes, "enforced_rules", lambda: (rule,))
    bad, good = planned(case, good=False), planned(case, good=True)
    (rejection, *_) = [r for r in bad.rejections if r.rule == rule.id]
    assert rejection.reason and rejection.fix == rule.fix and rejection.link == rule.link
    assert rule.id not in refused_by(good)


def test_every_rule_has_its_cases_and_an_id_of_its_own() -> None:
    assert {case.rule for case in CASES} - set(ARITHMETIC) == set(RULES)
    assert len(RULES) == len(BUILT_IN)
    assert all(rule.fix for rule in BUILT_IN)
    assert all(rule.link is None or rule.link.startswith("https://") for rule in BUILT_IN)


def test_rules_that_the_pinned_versions_outlived_say_until_when_they_applied() -> None:
    past = [rule for rule in BUILT_IN if not rule.enforced]
    assert {rule.id for rule in past} == {"zero3-checkpointed-adapter", "zero3-modules-to-save"}
    assert all("until" in rule.applies_to for rule in past)
    assert not set(past) & set(enforced_rules())


def test_a_rule_holds_again_for_an_older_pin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PINS, "deepspeed", ("0.19.2",))
    assert RULES["zero3-checkpointed-adapter"].enforced


def test_a_plan_that_needs_more_host_memory_than_there_is() -> None:
    made = request(QWEN, distributed__type="ddp")
    roomy = facts(made, EIGHT)
    assert isinstance(search(made, roomy), Plan)
    small = replace(
        roomy, clusters=tuple(replace(c, host_memory_bytes=16 << 30, host_memory_given=True) for c in roomy.clusters)
    )
    result = search(made, small)
    assert isinstance(result, NoPlan)
    assert "host-memory" in refused_by(result)
    (reason, *_) = [r.reason for r in result.rejections if r.rule == "host-memory"]
    assert "host memory" in reason and "GiB" in reason
