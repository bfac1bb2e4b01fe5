"""Version ranges, what the locks pin, and rules of plugins."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest
from asking import plan
from axoc.emit.requirements import requirements_lock, split_entries
from axoc.errors import UserError
from axoc.ir.plan import NoPlan, Plan
from axoc.search.rules import PINS, Context, Rule, Versions, enforced_rules
from axoc.search.rules.catalog import GROUP
from axoc.search.rules.versions import release
from axoc.search.space import Combination

QWEN, EIGHT = "Qwen/Qwen2.5-0.5B", "h100-sxm-80gb:8"


def test_pins_are_those_of_the_locks() -> None:
    """Whoever moves a pin moves this table, and then sees which rules no longer apply, or apply again."""
    locked: dict[str, set[str]] = {}
    for profile in ("cpu", "cuda"):
        for entry in split_entries(requirements_lock(profile)):  # type: ignore[arg-type]
            name, _, version = entry.split()[0].partition("==")
            locked.setdefault(name, set()).add(version.partition("+")[0])
    for library, versions in PINS.items():
        if library != "axoc-runtime":
            assert locked[library] == set(versions), library


@pytest.mark.parametrize(
    ("version", "covered"),
    [("0.9.9", False), ("0.10", True), ("0.10.0+cpu", True), ("0.19.7", True), ("0.19.8", False), ("1.0", False)],
)
def test_a_range_holds_its_first_and_not_its_until(version: str, covered: bool) -> None:
    assert Versions(library="deepspeed", first="0.10", until="0.19.8").cover(version) is covered


def test_an_open_range_holds_all_and_says_so() -> None:
    assert Versions(library="torch").cover("99") and Versions(library="torch").cover("0.1")
    assert str(Versions(library="torch")) == "torch"
    assert str(Versions(library="peft", first="0.3", until="0.9")) == "peft from 0.3 until 0.9"
    assert release("2.13.0+cpu") == release("2.13") < release("2.13.1")


def test_of_a_library_that_no_lock_pins_any_version_may_be_there() -> None:
    assert Versions(library="flash-attn", first="2.0", until="2.5").pinned
    assert not Versions(library="deepspeed", until="0.19.8").pinned


def no_long_names(context: Context, _: Combination) -> str | None:
    return "the name is too long for our cluster" if len(context.request.name) > 8 else None


HOUSE = Rule(id="house-names", check=no_long_names, fix="shorten name", link=None)
ANY_KERNELS = Rule(id="preference-kernels", check=lambda *_: None, fix="none", link=None)


def install(monkeypatch: pytest.MonkeyPatch, **rules: object) -> None:
    module = ModuleType("house_rules")
    vars(module).update(rules)
    monkeypatch.setitem(sys.modules, "house_rules", module)
    points = [EntryPoint(name=n, value=f"house_rules:{n}", group=GROUP) for n in rules]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points if group == GROUP else [])


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    enforced_rules.cache_clear()
    yield
    enforced_rules.cache_clear()


def test_a_plugins_rule_refuses_with_its_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, names=HOUSE)
    refused = plan(QWEN, EIGHT, name="much-too-long", model__compile=False)
    assert isinstance(refused, NoPlan)
    assert {(r.rule, r.fix) for r in refused.rejections} == {("house-names", "shorten name")}
    assert isinstance(plan(QWEN, EIGHT, name="short"), Plan)


def test_a_plugins_rule_takes_the_place_of_a_built_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(plan(QWEN, EIGHT, training__objective="reward", model__kernels="liger"), NoPlan)
    install(monkeypatch, kernels=ANY_KERNELS)
    enforced_rules.cache_clear()
    assert isinstance(plan(QWEN, EIGHT, training__objective="reward", model__kernels="liger"), Plan)
    assert len([r for r in enforced_rules() if r.id == "preference-kernels"]) == 1


@pytest.mark.parametrize("broken", [object(), None])
def test_a_plugin_that_is_no_rule_is_named_and_not_passed_over(monkeypatch: pytest.MonkeyPatch, broken: object) -> None:
    install(monkeypatch, mine=broken)
    with pytest.raises(UserError, match="'mine'"):
        plan(QWEN, EIGHT)


def test_a_plugin_that_cannot_be_loaded_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint(name="gone", value="no.such.module:RULE", group=GROUP)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [point])
    with pytest.raises(UserError, match="'gone'"):
        plan(QWEN, EIGHT)
