"""`axoc explain`: a spec's plan and a committed bundle are explained alike, within 100 columns, in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from asking import LORA, plan
from axoc.cli import main
from axoc.cost.disk import disk
from axoc.cost.host import HOST_PHASES, host_memory
from axoc.cost.ledger import ledgers
from axoc.emit.plan_json import plan_dict
from axoc.errors import UserError
from axoc.ir.plan import Plan
from axoc.review.explain import SHORT, WIDTH, as_text, explanation, plan_of_bundle
from axoc.review.items import DEVICE_ITEMS, DISK_ITEMS, HOST_ITEMS
from axoc.search.choose import all_passes
from click.testing import CliRunner

SPEC = "version: 1\nmodel: Qwen/Qwen2.5-0.5B\ndataset: {path: data.jsonl, max_seq_length: 1024}\n"


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    found = plan("meta-llama/Meta-Llama-3-8B", "h100-sxm-80gb:8", adapter=LORA)
    assert isinstance(found, Plan)
    return json.loads(json.dumps(plan_dict(found)))


def section(text: str, title: str) -> list[str]:
    return next(s.splitlines() for s in text.split("\n\n") if s.startswith(title))


def test_it_fits_100_columns_and_marks_the_peak(made: dict[str, Any]) -> None:
    text = as_text(made)
    assert max(map(len, text.splitlines())) <= WIDTH
    heads = section(text, "Device memory by phase")
    own = made["estimate"]["memory"]["peak_phase"].rpartition("_")[2]
    assert [SHORT.get(own, own) + "*"] == [w for line in heads[1:] for w in line.split() if w.endswith("*")]


def test_columns_add_up_to_the_phases_and_the_peak_is_the_largest(made: dict[str, Any]) -> None:
    recomputed = made | {"plan": made["plan"] | {"gradient_checkpointing": "selective"}}  # which has all phases
    shown = [float(w) for w in section(as_text(recomputed), "Device memory by phase")[-1].split()[1:]]
    phases = {p["item"]: p["bytes"] / 2**30 for p in made["estimate"]["memory"]["phases"]}
    assert shown == [pytest.approx(v, abs=0.006) for v in phases.values()]
    assert max(shown) == pytest.approx(made["estimate"]["memory"]["peak_allocated_bytes"] / 2**30, abs=0.006)


def test_phases_that_do_not_fit_beside_each_other_go_into_a_second_table(made: dict[str, Any]) -> None:
    many = [{"phase": f"phase_{i}", "items": [{"item": "weights", "bytes": i << 30}]} for i in range(14)]
    text = as_text(made | {"memory_by_phase": {"device": many, "host": []}})
    assert max(map(len, text.splitlines())) <= WIDTH
    rows = [line.split()[1:] for line in section(text, "Device memory") if line.startswith("  weights")]
    assert len(rows) == 2 and [w for r in rows for w in r] == ["."] + [f"{i}.00" for i in range(1, 14)]


def test_phases_of_blocks_that_a_plan_has_none_of_are_left_out(made: dict[str, Any]) -> None:
    def shown(checkpointing: str, peak: str = "loss") -> set[str]:
        memory = made["estimate"]["memory"] | {"peak_phase": peak}
        told = made["estimate"] | {"memory": memory}
        text = as_text(made | {"plan": made["plan"] | {"gradient_checkpointing": checkpointing}, "estimate": told})
        return {"first", "first*", "recomp", "recomp*"} & set(text.split("Against the device")[0].split())

    assert shown("none") == {"first"} and shown("full") == {"recomp"} and shown("selective") == {"first", "recomp"}
    assert shown("none", "backward_recompute") == {"first", "recomp*"}, "what is the peak is there"


def test_the_bar_is_full_in_proportion(made: dict[str, Any]) -> None:
    memory = made["estimate"]["memory"]
    (bar,) = (line for line in as_text(made).splitlines() if line.startswith("  [#"))
    drawn = bar[bar.index("[") + 1 : bar.index("]")]
    used = sum(drawn.count(mark) for mark in "#=-")
    assert used / len(drawn) == pytest.approx(memory["device_used_bytes"] / memory["capacity_bytes"], abs=0.02)
    assert drawn.count(":") / len(drawn) == pytest.approx(0.03, abs=0.02)


def test_the_margin_is_said_as_in_the_plan(made: dict[str, Any]) -> None:
    text = " ".join(as_text(made).split())
    assert made["margin"]["sentence"] in text and "< first" in text
    for knob in made["margin"]["knobs"]:
        assert f"{knob['label']} {knob['value']:,} planned, fits to {knob['fits_to']:,}" in text


def test_every_item_of_every_ledger_is_said_in_words(made: dict[str, Any]) -> None:
    """So that a term that is added to a ledger gets its line here."""
    found = plan("meta-llama/Meta-Llama-3-8B", "h100-sxm-80gb:8")
    assert isinstance(found, Plan)
    from asking import facts, request

    asked = request("meta-llama/Meta-Llama-3-8B")
    costed = all_passes(asked, facts(asked, "h100-sxm-80gb:8"))[0].costed
    s, c = costed.scenario.variant(0), costed.columns.of_one_variant()
    device = {item for ledger in ledgers(s, c).values() for item in ledger}
    host = host_memory(s, c, costed.memory.allocated, costed.memory.allocated)
    assert device <= set(DEVICE_ITEMS)
    assert {item for p in HOST_PHASES for item in host.ledgers[p]} <= set(HOST_ITEMS)
    assert set(disk(s, c)) <= set(DISK_ITEMS)
    assert f"weights: {DEVICE_ITEMS['weights']}" in " ".join(as_text(made).split())


def test_json_has_what_the_text_has(made: dict[str, Any]) -> None:
    told = explanation(made)
    assert told["device"]["phases"] and told["host"]["phases"] and told["disk"]["ledger"]
    assert told["margin"]["first_to_break"] in {k["field"] for k in told["margin"]["knobs"]}
    for phases in (told["device"]["phases"], told["host"]["phases"]):
        assert all(i["bytes"] > 0 for p in phases for i in p["items"])


def test_a_bundle_is_explained_as_it_was_written_wherever_it_lies(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(SPEC)
    run = CliRunner()
    spec, bundle = str(tmp_path / "spec.yaml"), tmp_path / "bundle"
    planned = run.invoke(main, ["plan", spec, "--inventory", "h100-sxm-80gb:2", "--out", str(bundle)])
    assert planned.exit_code == 0, planned.output
    by_spec = run.invoke(main, ["explain", spec, "--inventory", "h100-sxm-80gb:2"])
    moved = bundle.rename(tmp_path / "moved bundle")
    by_bundle = run.invoke(main, ["explain", str(moved)])
    assert by_spec.exit_code == by_bundle.exit_code == 0
    assert by_bundle.output == by_spec.output and "\x1b" not in by_spec.output
    sentence = json.loads((moved / "plan.json").read_text())["margin"]["sentence"]
    assert sentence in (moved / "PLAN.md").read_text().replace("\\", "")
    assert sentence in " ".join(by_bundle.output.split())


def test_color_is_bold_and_nothing_else(made: dict[str, Any]) -> None:
    plain, painted = as_text(made), as_text(made, color=True)
    assert "\x1b[1m" in painted and "\x1b" not in plain
    assert painted.replace("\x1b[1m", "").replace("\x1b[0m", "") == plain


def test_a_folder_without_a_plan_and_an_old_plan_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no plan that can be read: No such file"):
        plan_of_bundle(tmp_path)
    (tmp_path / "plan.json").write_text('{"schema_version": 1}')
    with pytest.raises(UserError, match="older axoc"):
        plan_of_bundle(tmp_path)


def test_where_nothing_fits_explain_says_what_lacks(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(
        SPEC.replace("Qwen/Qwen2.5-0.5B", "meta-llama/Meta-Llama-3-70B") + "distributed: {type: ddp}\n"
    )
    done = CliRunner().invoke(main, ["explain", str(tmp_path / "spec.yaml"), "--inventory", "h100-sxm-80gb:8"])
    assert done.exit_code == 4 and "GiB short" in done.stderr
