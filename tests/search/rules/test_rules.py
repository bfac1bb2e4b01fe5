"""Each rule refuses a bad spec, and lets the same spec pass once its fix is made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from asking import asked, facts, request
from axoc.ir.plan import NoPlan, Plan, Rejection
from axoc.ir.request import PlanRequest
from axoc.search import passes
from axoc.search.choose import Facts, all_passes, rejected, scenarios, search
from axoc.search.rules import BUILT_IN, PINS, Refusal, enforced_rules
from search.rules.cases import CASES, EIGHT, FP8, QWEN, Case

RULES = {rule.id: rule for rule in BUILT_IN}
ARITHMETIC = ("batch-arithmetic",)
"""Refused by the search itself."""
ONE_WAY = {"model__kernels": "none", "training__gradient_checkpointing": "full"}
"""Where a case says nothing else: what is searched beside a rule adds nothing to it."""


def request_of(case: Case, *, good: bool) -> tuple[PlanRequest, Facts]:
    inventory = (case.good_inventory if good else None) or case.inventory
    changes = case.keeps | case.bad | (case.fixed if good else {})
    compiled = {} if FP8.items() <= changes.items() else {"model__compile": False}
    return asked(case.model, inventory, **ONE_WAY | compiled | changes)


def rules_of(rejections: Iterable[Rejection]) -> set[str]:
    return {rejection.rule for rejection in rejections}


def named(case: Case) -> str:
    return "-".join([case.rule, *map(str, case.pitfalls)])


@pytest.mark.parametrize("case", CASES, ids=named)
def test_a_bad_spec_is_refused_and_a_good_one_passes(case: Case) -> None:
    """With all rules, as a user meets them. What the pinned versions can do is not refused any more."""
    (bad, refused), (good, others) = (tried(case, good=good) for good in (False, True))
    assert good, rules_of(others)
    if case.rule in ARITHMETIC or RULES[case.rule].enforced:
        assert not bad
        assert case.shadowed or case.rule in rules_of(refused)
    else:
        assert bad, rules_of(refused)
    for told in (r for r in refused if r.rule == case.rule and r.rule in RULES):
        assert told.reason and (told.fix, told.link) == (RULES[told.rule].fix, RULES[told.rule].link)


def tried(case: Case, *, good: bool) -> tuple[bool, tuple[Rejection, ...]]:
    """Whether anything fits, and what does not."""
    found = all_passes(*request_of(case, good=good))
    return any(bool(p.fits().any()) for p in found), rejected(found)


@pytest.mark.parametrize("case", [c for c in CASES if c.rule in RULES], ids=named)
def test_a_rule_does_so_by_itself(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """With this rule alone, also where another one would come first, or where the pinned versions no longer fail."""
    rule = RULES[case.rule]
    monkeypatch.setattr(passes, "enforced_rules", lambda: (rule,))
    bad, good = (refusals(*request_of(case, good=good)) for good in (False, True))
    assert bad and all(r.rule is rule and r.reason for r in bad)
    assert not good


def refusals(made: PlanRequest, known: Facts) -> list[Refusal]:
    """Rules look at combinations before anything is costed."""
    found = [pair for scenario, _ in scenarios(made, known) for pair in passes.judged(made, scenario)]
    return [refusal for _, refusal in found if refusal is not None]


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
    made = request(QWEN, distributed__type="ddp", model__compile=False, **ONE_WAY)
    roomy = facts(made, EIGHT)
    assert isinstance(search(made, roomy), Plan)
    small = replace(
        roomy, clusters=tuple(replace(c, host_memory_bytes=16 << 30, host_memory_given=True) for c in roomy.clusters)
    )
    result = search(made, small)
    assert isinstance(result, NoPlan)
    assert "host-memory" in rules_of(result.rejections)
    (reason, *_) = [r.reason for r in result.rejections if r.rule == "host-memory"]
    assert "host memory" in reason and "GiB" in reason
