"""The table of pitfalls is complete, and all that it names is there."""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path

import pytest
from axoc.search.rules import BUILT_IN
from axoc.search.rules.pitfalls import MET_BY, Pitfall, pitfalls
from search.rules import cases, test_schema

ROOT = Path(__file__).resolve().parents[3]
OTHER_RULES = {
    "batch-arithmetic": "compiler/axoc/search/choose.py",
    "host-memory": "compiler/axoc/search/passes.py",
    "early-stopping-saves": "compiler/axoc/search/explain.py",
}
"""Refusals and repairs that are no Rule, and where they are."""
ALL = pitfalls()


@cache
def names(path: Path) -> frozenset[str]:
    """What a module defines at its top."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {t.id for t in targets if isinstance(t, ast.Name)}
    return frozenset(found)


def test_there_are_52_each_with_an_id_of_its_own() -> None:
    assert [p.number for p in ALL] == list(range(1, 53))
    assert len({p.id for p in ALL}) == 52


@pytest.mark.parametrize("pitfall", ALL, ids=lambda p: f"{p.number}-{p.id}")
def test_a_line_is_complete_and_all_it_names_exists(pitfall: Pitfall) -> None:
    assert pitfall.met_by in MET_BY
    assert pitfall.what and pitfall.now and pitfall.fix and pitfall.places and pitfall.tests
    assert pitfall.links and all(link.startswith("https://") for link in pitfall.links)
    for place in pitfall.places:
        path, _, name = place.partition(":")
        known = names(ROOT / path) if path.endswith(".py") else (ROOT / path).read_text()
        assert name and name in known, place
    for test in pitfall.tests:
        path, _, name = test.partition("::")
        assert name.startswith("test_") and name in names(ROOT / path), test


@pytest.mark.parametrize("pitfall", [p for p in ALL if p.rules], ids=lambda p: f"{p.number}-{p.id}")
def test_its_rules_exist(pitfall: Pitfall) -> None:
    built_in = {rule.id for rule in BUILT_IN}
    for rule in pitfall.rules:
        assert rule in built_in or rule in (ROOT / OTHER_RULES[rule]).read_text(encoding="utf-8"), rule


def test_what_rules_and_schema_meet_has_a_bad_spec_and_a_good_one() -> None:
    """A case for its number, of a rule that the line names; in the tests that the line names."""
    by_rule = {(n, case.rule) for case in cases.CASES for n in case.pitfalls}
    by_schema = {case.pitfall for case in test_schema.CASES}
    for p in ALL:
        if any("test_rules.py::test_a_bad_spec" in t for t in p.tests):
            assert [rule for rule in p.rules if (p.number, rule) in by_rule], p.number
        if any("test_schema.py" in t for t in p.tests):
            assert p.number in by_schema, p.number
        if p.met_by == "schema":
            assert p.number in by_schema, p.number
    assert {n for n, _ in by_rule} | by_schema <= {p.number for p in ALL}


def test_versions_of_a_rule_and_of_its_pitfall_agree() -> None:
    rules = {rule.id: rule for rule in BUILT_IN}
    for p in ALL:
        for rule in (rules[r] for r in p.rules if r in rules):
            if not rule.enforced:
                assert rule.versions == p.versions and "Not enforced" in p.now, p.number


def test_the_page_is_current() -> None:
    sys.path.insert(0, str(ROOT / "tools"))
    import rules_doc

    assert rules_doc.document() == rules_doc.TARGET.read_text(), "run make golden"
