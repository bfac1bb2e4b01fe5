"""PLAN.md says of every value who set it and why; of runners-up what they would cost; of refusals the rule and the fix."""

from __future__ import annotations

import re

import pytest
from axoc import driver
from axoc.emit.documents import plan_markdown
from axoc.emit.render import markdown_text
from axoc.emit.settings import settings
from axoc.ir.plan import Plan
from axoc.spec.fields import PARTS, all_fields

SPEC = """\
model: meta-llama/Llama-3.1-8B
adapter: {type: lora, rank: 8}
dataset: {path: data/train.jsonl, max_seq_length: 2048}
training: {max_steps: 100, learning_rate: 1.0e-5, micro_batch_size: 2, optimizer: adamw_bnb_8bit}
policy: {max_gpus: 8}
"""
NOT_IN_THIS_RUN = ("training.preference.", "training.grpo.", "policy.objective.", "model.quantization.")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    spec = tmp_path_factory.mktemp("provenance") / "spec.yaml"
    spec.write_text(SPEC)
    result = driver.plan(spec, "h100-sxm-80gb:8").result
    assert isinstance(result, Plan)
    return result


@pytest.fixture(scope="module")
def page(plan: Plan) -> str:
    return plan_markdown(plan, "..")


def test_every_field_of_the_spec_stands_in_the_page_once(plan: Plan) -> None:
    told = [d.field for d in plan.decisions] + [s.field for s in settings(plan)]
    assert len(told) == len(set(told))
    expected = {f for f in all_fields() if f not in PARTS and f != "version" and not f.startswith(NOT_IN_THIS_RUN)}
    assert not expected - set(told)


def test_what_the_user_wrote_is_the_users_and_nothing_else_is(plan: Plan, page: str) -> None:
    source = {s.field: s.source for s in settings(plan)} | {d.field: d.source for d in plan.decisions}
    wrote = {f for f in plan.request.explicit if f not in PARTS}
    assert {f for f, s in source.items() if s == "user"} == wrote
    for field in ("training.learning_rate", "training.micro_batch_size", "adapter.rank", "policy.max_gpus"):
        assert re.search(rf"(?m)^\| {re.escape(field)} \| .* \| user \| set in the spec", page), field
    assert re.search(r"(?m)^\| training.weight_decay \| 0.0 \| default \| \S", page)


def test_every_value_has_a_reason(plan: Plan) -> None:
    assert all(d.because and re.fullmatch(r"user|default|search|rule:[a-z0-9-]+", d.source) for d in plan.decisions)
    assert all(s.because for s in settings(plan))


def test_runners_up_have_a_cost_and_refusals_a_rule_with_a_fix(plan: Plan, page: str) -> None:
    rows = page.split("## Runners-up")[1].split("## Refused")[0].splitlines()
    shown = [r for r in rows if r.startswith("| ") and "micro-batch" in r]
    assert len(shown) == min(5, len(plan.candidates) - 1) and all("$" in r for r in shown)
    refused = page.split("## Refused")[1]
    for rejection in plan.rejections:
        assert markdown_text(rejection.rule) in refused and rejection.fix
    linked = [r for r in plan.rejections if r.link]
    assert linked and all(f"]({r.link})" in refused for r in linked)
