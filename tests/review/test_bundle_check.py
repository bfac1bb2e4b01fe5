"""Edited bundles: every single edit is caught by its digest, and, with the digests made anew, by what it contradicts."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axoc.cli import main
from axoc.emit import sources
from axoc.emit.json_places import lines_of
from axoc.emit.manifest import MANIFEST
from axoc.ir.canonical import digest, dumps
from axoc.review.bundle_check import Checked, check_bundle
from click.testing import CliRunner

SPEC = """\
# reviewed in June
model: {id: meta-llama/Llama-3.1-8B, kernels: none, compile: false}
dataset: {path: data/train.jsonl, max_seq_length: 2048}
training: {max_steps: 100, learning_rate: 1.0e-5, micro_batch_size: 1, gradient_checkpointing: full}
distributed: {type: %s, mixed_precision: bf16}
"""


@pytest.fixture(scope="module", autouse=True)
def runtime_snapshot() -> Iterator[None]:
    """One reading of the runtime's sources for all bundles and checks."""
    files = sources.runtime_files()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "runtime_files", lambda: files)
        yield


@pytest.fixture(scope="module", params=["zero3", "fsdp"])
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(f"a bundle of {request.param}")
    (folder / "spec.yaml").write_text(SPEC % request.param)
    command = ["plan", str(folder / "spec.yaml"), "--inventory", "h100-sxm-80gb:8", "--out", str(folder / "bundle")]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    return folder / "bundle"


@pytest.fixture
def bundle(original: Path, tmp_path: Path) -> Path:
    shutil.copytree(original, tmp_path / "bundle")
    return tmp_path / "bundle"


HARMLESS = {
    "candidates": "what plans that were not chosen would take: no run goes by it, and axoc plan --check compares it",
    "pareto": "likewise",
    "rejections": "likewise",
    "facts": "what the inventory says of the machine: it was used up in the estimate, which is held against the rest",
    "spec.lock": "the data's own digest and size: only the data can contradict them, and axoc lock reads them again",
}
"""By key of plan.json, or by file: edits with the digests made anew that nothing in the bundle contradicts."""


def harmless(name: str, path: tuple[Any, ...]) -> bool:
    inside = path[0] in HARMLESS and path[1] != 0 if len(path) > 1 else False
    return name == "plan.json" and (inside or path[:2] == ("facts", "cluster") or path[0] == "rejections")


def seal(folder: Path) -> None:
    """As someone would who knows that launch.sh looks at digests."""
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"] = {n: digest((folder / n).read_bytes()) for n in manifest["files"]}
    manifest["bundle_digest"] = digest(dumps(manifest["files"]).encode())
    (folder / MANIFEST).write_text(dumps(manifest))


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not children or not value:
        yield path
    for key, child in children:
        yield from leaves(child, (*path, key))


def other(value: Any) -> Any:
    """Another value of the same kind, near enough to be overlooked."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, str):
        return value + "0"
    return {None: 1}.get(value, ["other"]) if value is None else ["other"] if isinstance(value, list) else {"other": 1}


def change(folder: Path, name: str, path: tuple[Any, ...]) -> None:
    content = json.loads((folder / name).read_text())
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = other(inner[path[-1]])
    (folder / name).write_text(dumps(content))


def json_edits(folder: Path) -> list[tuple[str, tuple[Any, ...]]]:
    """Every value of the job and the configuration; some of the plan's thousands."""
    names = ["job.json", *(p.relative_to(folder).as_posix() for p in sorted((folder / "config").glob("*.json")))]
    edits = [(n, path) for n in names for path in leaves(json.loads((folder / n).read_text()))]
    plan = json.loads((folder / "plan.json").read_text())
    shallow = [
        p for p in leaves(plan) if p[0] in ("plan", "spec_digest", "axoc_version", "training_contract", "resume")
    ]
    deep = random.Random(9).sample([p for p in leaves(plan) if p not in shallow], 12)
    return edits + [("plan.json", p) for p in [*shallow, *deep]]


def test_a_fresh_bundle_agrees_with_itself(original: Path) -> None:
    found = check_bundle(original)
    assert found.clean and not found.notes, (found.altered, found.contradictions)
    assert CliRunner().invoke(main, ["verify", str(original)]).exit_code == 0


def test_every_edit_of_a_value_is_caught_though_digests_are_made_anew(bundle: Path) -> None:
    edits = json_edits(bundle)
    assert len(edits) > 130
    edits = random.Random(1).sample(edits, 25 if "fsdp.json" in str(edits) else 85)
    for number, (name, path) in enumerate(edits):
        before = (bundle / name).read_bytes()
        change(bundle, name, path)
        if number % 12 == 0:  # digests do not depend on what was edited
            assert any(name in str(d.file) for d in check_bundle(bundle).altered), (name, path)
        seal(bundle)
        found = check_bundle(bundle)
        assert not found.altered and (found.contradictions or harmless(name, path)), (name, path)
        (bundle / name).write_bytes(before)
    seal(bundle)
    assert check_bundle(bundle).clean


def text_edits(folder: Path) -> Iterator[tuple[str, int]]:
    """Three lines of every other file; of the many sources three files."""
    some = random.Random(3)
    names = [p.relative_to(folder).as_posix() for p in sorted(folder.rglob("*")) if p.is_file() and p.suffix != ".json"]
    runtime = [n for n in names if n.startswith("runtime/")]
    for name in [n for n in names if n not in runtime] + some.sample(runtime, 3):
        lines = (folder / name).read_text().splitlines()
        kept = [i for i, line in enumerate(lines) if line.strip() and not line.lstrip().startswith("#")]
        yield from ((name, i) for i in some.sample(kept, min(3, len(kept))))


def test_every_edit_of_a_line_is_caught_though_digests_are_made_anew(bundle: Path) -> None:
    edits = list(text_edits(bundle))
    assert len(edits) > 25
    for name, index in edits:
        before = (bundle / name).read_text()
        lines = before.splitlines(keepends=True)
        lines[index] = lines[index].rstrip("\n") + "0\n"
        (bundle / name).write_text("".join(lines))
        seal(bundle)
        found = check_bundle(bundle)
        unknown = name == "spec.lock" and lines[index].lstrip().startswith(("sha256", "bytes"))
        assert found.contradictions or unknown, (name, lines[index])
        (bundle / name).write_text(before)


def only(found: Checked) -> str:
    assert len(found.contradictions) == 1, found.contradictions
    return found.contradictions[0].render()


def test_a_contradiction_names_both_files_and_lines(bundle: Path) -> None:
    job = json.loads((bundle / "job.json").read_text())
    (bundle / "job.json").write_text(dumps(job | {"training": job["training"] | {"learning_rate": 0.5}}))
    line = lines_of((bundle / "job.json").read_text())[("training", "learning_rate")]
    said = only(check_bundle(bundle))
    assert f"job.json:{line}: training.learning_rate is 0.5, where spec.yaml:4 gives 1e-05" in said


def test_a_configuration_that_does_not_follow_from_the_plan(bundle: Path) -> None:
    (config,) = (bundle / "config").glob("*.json")
    values = json.loads(config.read_text())
    key = "gradient_clipping" if "gradient_clipping" in values else "fsdp_version"
    config.write_text(dumps(values | {key: 9}))
    said = only(check_bundle(bundle))
    assert f"{config.name}:{lines_of(config.read_text())[(key,)]}: {key} is 9, where" in said


def test_the_launcher_against_the_plan(bundle: Path) -> None:
    env = bundle / "config/launch.env"
    env.write_text(env.read_text().replace("PLAN_PROCESSES_PER_NODE=8", "PLAN_PROCESSES_PER_NODE=4"))
    seal(bundle)
    assert f"{env}:5" in only(check_bundle(bundle))


def test_missing_extra_and_not_executable(bundle: Path) -> None:
    (bundle / "Dockerfile").unlink()
    (bundle / "config/more.json").write_text("{}")
    (bundle / "launch.sh").chmod(0o644)
    said = " ".join(d.render() for d in check_bundle(bundle).altered)
    assert "Dockerfile: missing" in said and "more.json: extra" in said and "not executable" in said


@pytest.mark.parametrize("name", ["plan.json", "job.json"])
@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"plan": 1}', "\x00"])
def test_what_is_no_plan_or_job_is_told_without_a_traceback(bundle: Path, name: str, text: str) -> None:
    (bundle / name).write_text(text)
    done = CliRunner().invoke(main, ["verify", str(bundle)])
    assert done.exit_code == 3 and name in done.output and "Traceback" not in done.output


def test_a_spec_that_is_broken_is_told_by_its_line(bundle: Path) -> None:
    spec = bundle / "spec.yaml"
    spec.write_text(spec.read_text().replace("max_steps: 100", "max_stepz: 100"))
    done = CliRunner().invoke(main, ["verify", str(bundle)])
    assert done.exit_code == 3 and f"{spec}:4" in done.output and "max_steps" in done.output


def test_values_of_any_kind_are_told_without_a_traceback(bundle: Path) -> None:
    some = random.Random(11)
    strange: list[Any] = [None, True, 0, -1, 1e308, "", [], {}, "x", [1], {"a": 1}]
    for _ in range(60):
        name = some.choice(["plan.json", "job.json", MANIFEST])
        before = (bundle / name).read_bytes()
        content = json.loads(before)
        path = some.choice(list(leaves(content)))
        inner = content
        for key in path[: (depth := some.randrange(len(path)))]:
            inner = inner[key]
        inner[path[depth]] = some.choice(strange)
        (bundle / name).write_text(json.dumps(content))
        done = CliRunner().invoke(main, ["verify", str(bundle)])
        assert done.exit_code in (1, 3) and isinstance(done.exception, SystemExit), (name, path, done.exception)
        (bundle / name).write_bytes(before)


def test_a_folder_that_is_no_bundle(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["verify", str(tmp_path)])
    assert done.exit_code == 1 and "manifest" in done.output


def test_another_axoc_is_told_and_its_digests_still_count(bundle: Path) -> None:
    for name in (MANIFEST, "plan.json", "job.json"):
        text = (bundle / name).read_text()
        (bundle / name).write_text(text.replace('"axoc_version": "0.1.0"', '"axoc_version": "0.0.9"'))
    seal(bundle)
    found = check_bundle(bundle)
    assert found.clean and "written by axoc 0.0.9" in found.notes[0]
    (bundle / "PLAN.md").write_text("other")
    assert check_bundle(bundle).altered


def test_json_output(bundle: Path) -> None:
    (bundle / "job.json").write_text((bundle / "job.json").read_text().replace('"seed": 42', '"seed": 43'))
    done = CliRunner().invoke(main, ["verify", str(bundle), "--format", "json"])
    said = json.loads(done.output)
    assert not said["clean"] and said["altered"] and said["contradictions"][0]["line"] > 1


HAND = """\
distributed: {type: zero3, config_path: mine.json}
"""


def test_a_configuration_of_ones_own_passes_the_same_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mine = {"train_micro_batch_size_per_gpu": "auto", "zero_optimization": {"stage": 3, "overlap_comm": False}}
    (tmp_path / "mine.json").write_text(dumps(mine))
    (tmp_path / "spec.yaml").write_text((SPEC % "zero3").rsplit("\n", 2)[0] + "\n" + HAND)
    command = ["plan", "spec.yaml", "--inventory", "h100-sxm-80gb:8"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert check_bundle(tmp_path / "bundle").clean
    wrong = dumps(mine | {"zero_optimization": {"stage": 2}})
    (tmp_path / "bundle/config/deepspeed.json").write_text(wrong)
    seal(tmp_path / "bundle")
    assert "deepspeed.json:4: zero_optimization.stage is 2, the plan says 3" in only(check_bundle(tmp_path / "bundle"))
    (tmp_path / "mine.json").write_text(wrong)
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 1 and "mine.json:4: zero_optimization.stage is 2" in done.output
