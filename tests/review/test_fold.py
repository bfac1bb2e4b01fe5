"""Runs folded into a profile: what a slower machine took leads back to its pace, and planning with it to its seconds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from asking import LORA, facts, plan, request
from axoc.cli import main
from axoc.cost.time import HOST
from axoc.emit.job import job_dict
from axoc.errors import UserError
from axoc.facts.inventory import parse_inventory
from axoc.facts.profile import KIND, Pace, profile_for, shipped_profile_text
from axoc.review.fold import fold, run_of
from axoc.search.choose import search
from click.testing import CliRunner

H100 = "h100-sxm-80gb"
PLAIN: dict[str, Any] = {"model__kernels": "liger", "model__compile": False, "dataset__packing": False}
"""The same way to run on machines of every pace."""
JOBS: dict[str, dict[str, Any]] = {
    "meta-llama/Llama-3.2-1B": PLAIN | {"training__micro_batch_size": 8},
    "Qwen/Qwen2.5-0.5B": PLAIN | {"training__micro_batch_size": 1, "adapter": LORA},
    "google/gemma-2-2b": PLAIN | {"training__micro_batch_size": 1, "adapter": LORA},
}


def inventory(folder: Path, profile: str | None, accelerator: str = H100, nodes: int = 1) -> Path:
    file = folder / "inventory.yaml"
    own = "" if profile is None else f", profile: {profile}"
    file.write_text(f"version: 1\nkinds:\n  - {{accelerator: {accelerator}, per_node: {nodes}{own}}}\n")
    return file


def paced(folder: Path, accelerator: str = H100, **pace: float) -> str:
    """A profile of a machine that has no tables of its own beside the pace."""
    text = shipped_profile_text(accelerator)
    values = json.loads(text) if text else {"schema_version": 1, "kind": KIND, "made": "", "tables": {}}
    (folder / "theirs.json").write_text(json.dumps(values | {"folded": {"pace": pace}}))
    return "theirs.json"


def planned(model: str, file: Path, **changes: Any) -> Any:
    made = request(model, **changes)
    known = facts(made, H100)
    found = parse_inventory(str(file), file.read_text(), str(file))
    return search(made, replace(known, clusters=found))


def took(folder: Path, name: str, told: dict[str, Any], seconds: float, **changes: Any) -> Path:
    """metrics.json of a run that was planned so and took so long."""
    path = folder / f"{name.replace('/', '-')}.json"
    values = {
        "name": name, "spec_digest": f"sha256:{name}", "accelerator": told["expect"]["accelerator"],
        "strategy": told["distributed"]["strategy"], "world_size": told["distributed"]["world_size"],
        "steps_this_run": 20, "batch_fill": 1.0, "step_seconds": seconds, "predicted": told["prediction"],
    }  # fmt: skip
    path.write_text(json.dumps(values | changes))
    return path


@pytest.mark.parametrize(("device", "host"), [(1.15, 1.0), (1.0, 1.3), (1.1, 1.25), (0.95, 0.9)])
@pytest.mark.parametrize("accelerator", [H100, "a100-sxm-80gb"])
def test_the_pace_of_a_machine_is_found_from_what_its_runs_took(
    tmp_path: Path, accelerator: str, device: float, host: float
) -> None:
    theirs = inventory(tmp_path, paced(tmp_path, accelerator, device=device, host=host), accelerator)
    truth = {model: planned(model, theirs, **job).chosen.estimate.time.step_seconds for model, job in JOBS.items()}
    usual = inventory(tmp_path, None, accelerator)
    jobs = {model: job_dict(planned(model, usual, **job)) for model, job in JOBS.items()}
    files = [took(tmp_path, model, jobs[model], truth[model]) for model in JOBS]
    found = fold(files, None, tmp_path / "own.json")
    kinds = {run.kind for run in found.runs}
    if "busy" in kinds:
        assert found.pace.device == pytest.approx(device, rel=0.03)
    if "waiting" in kinds:
        assert found.pace.host == pytest.approx(host, rel=0.08)
    assert kinds & {"busy", "waiting"} and found.pace.links == 1.0
    own = inventory(tmp_path, "own.json", accelerator)
    for model, job in JOBS.items():
        assert planned(model, own, **job).chosen.estimate.time.step_seconds == pytest.approx(truth[model], rel=0.06)


def test_a_run_planned_with_a_pace_says_the_same_as_one_planned_without(tmp_path: Path) -> None:
    model, job = next(iter(JOBS.items()))
    with_pace = job_dict(planned(model, inventory(tmp_path, paced(tmp_path, device=1.2)), **job))
    without = job_dict(planned(model, inventory(tmp_path, None), **job))
    one, other = (run_of(json.loads(took(tmp_path, "x", told, 1.0).read_text())) for told in (with_pace, without))
    assert one.device == pytest.approx(other.device, rel=0.01)
    assert with_pace["prediction"]["pace"]["device"] == 1.2


def test_links_are_told_by_runs_on_several(tmp_path: Path) -> None:
    job = {"training__micro_batch_size": 1, "training__global_batch_size": 8, "distributed__type": "zero2"}
    told = job_dict(plan("meta-llama/Llama-3.1-8B", f"{H100}:8", **job))  # type: ignore[arg-type]
    links = told["prediction"]["step_breakdown"]["exposed communication"]
    seconds = told["prediction"]["step_seconds"] + 0.5 * links
    found = fold([took(tmp_path, "a", told, seconds)], None, tmp_path / "own.json")
    assert found.pace == Pace(links=pytest.approx(1.5, rel=0.01))
    own = parse_inventory("i", inventory(tmp_path, "own.json", nodes=8).read_text(), str(tmp_path / "i"))
    assert profile_for(own[0]).pace.links == found.pace.links  # type: ignore[union-attr]
    slower = planned("meta-llama/Llama-3.1-8B", inventory(tmp_path, "own.json", nodes=8), **job).chosen.estimate.time
    assert slower.step_seconds == pytest.approx(seconds, rel=0.05)  # latencies stay as they are


def test_runs_add_up_and_three_of_a_kind_make_a_band(tmp_path: Path) -> None:
    told = job_dict(plan(next(iter(JOBS)), H100, training__micro_batch_size=8))  # type: ignore[arg-type]
    step = told["prediction"]["step_seconds"]
    out = tmp_path / "own.json"
    files = [took(tmp_path, f"run {i}", told, step * ratio) for i, ratio in enumerate((1.0, 1.1, 1.2))]
    assert fold(files[:2], None, out).bands == {}
    both = fold([files[2], files[0]], out, out)
    assert [run.name for run in both.runs] == ["run 1", "run 2", "run 0"]
    assert both.pace.device == pytest.approx(1.1, rel=0.02)
    assert both.bands["busy"] == pytest.approx(0.15 / 1.05, rel=0.05)  # of 1.2, by the median of the other two


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"steps_this_run": 3}, "3 steps are too few"),
        ({"batch_fill": 0.1}, "its batches were 10%"),
        ({"batch_fill": None}, "were unknown"),
        ({"step_seconds": 40.0}, "times what was predicted"),
        ({"predicted": {}}, "not the metrics of a run"),
    ],
)
def test_a_run_that_tells_nothing_is_refused_and_nothing_is_written(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    job = job_dict(plan(next(iter(JOBS)), H100, training__micro_batch_size=8))  # type: ignore[arg-type]
    file = took(tmp_path, "x", job, job["prediction"]["step_seconds"], **changes)
    with pytest.raises(UserError, match=told):
        fold([file], None, tmp_path / "own.json")
    assert not (tmp_path / "own.json").exists()


def test_the_command(tmp_path: Path) -> None:
    job = job_dict(plan(next(iter(JOBS)), H100, training__micro_batch_size=8))  # type: ignore[arg-type]
    files = [str(took(tmp_path, f"r{i}", job, job["prediction"]["step_seconds"] * 1.1)) for i in range(3)]
    out = tmp_path / "own.json"
    done = CliRunner().invoke(main, ["calibrate", "--out", str(out), "--from", files[0], *files[1:]])
    assert done.exit_code == 0, done.output
    assert "device 1.1" in done.output and "+10.0%" in done.output and out.is_file()
    wrong = CliRunner().invoke(main, ["calibrate", "--out", str(out), *files])
    assert wrong.exit_code == 2 and "go with --from" in wrong.output


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"schema_version": 2, "tables": {}}', "version 2"),
        ("[]", "not a calibration profile"),
        ('{"schema_version": 1, "made": "", "tables": {}, "accelerator": "l4-24gb"}', "of l4-24gb"),
        ('{"schema_version": 1, "made": ""}', "not whole"),
        (None, "cannot read the profile"),
    ],
)
def test_an_inventory_says_what_is_wrong_with_its_profile(tmp_path: Path, text: str | None, told: str) -> None:
    if text is not None:
        (tmp_path / "own.json").write_text(text)
    file = inventory(tmp_path, "own.json")
    with pytest.raises(UserError, match=told) as caught:
        parse_inventory(str(file), file.read_text(), str(file))
    assert caught.value.diagnostics[0].line == 3


def test_what_an_inventory_names_is_what_the_host_metric_is_of(tmp_path: Path) -> None:
    slow = planned("google/gemma-2-2b", inventory(tmp_path, paced(tmp_path, host=2.0)), **JOBS["google/gemma-2-2b"])
    usual = planned("google/gemma-2-2b", inventory(tmp_path, None), **JOBS["google/gemma-2-2b"])
    waits = [dict(p.chosen.estimate.time.breakdown)[HOST] for p in (slow, usual)]
    assert waits[0] > waits[1]
