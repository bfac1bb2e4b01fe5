"""A repository with a spec and its bundle, and a pull request that changes the spec: the files of examples/ci as they are."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import axoc
import pytest
import yaml
from axoc.emit.json_places import leaf_differences

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "ci"
SPEC = """\
# The support assistant.
model: {id: meta-llama/Llama-3.1-8B, kernels: none, compile: false}
dataset: {path: data/train.jsonl, max_seq_length: 2048}
training: {max_steps: 300, learning_rate: 1.0e-5, gradient_checkpointing: full}
"""
IDENTITY = {f"GIT_{who}_{what}": "x@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
Done = subprocess.CompletedProcess[str]


class Repository:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        axoc_here = str(Path(sys.executable).parent)
        self.environment = os.environ | IDENTITY | {"PATH": f"{axoc_here}{os.pathsep}{os.environ['PATH']}"}
        self.environment.pop("AXOC_POLICY", None)

    def run(self, *command: str, **environment: str) -> Done:
        everything = self.environment | environment
        return subprocess.run(command, cwd=self.folder, env=everything, capture_output=True, text=True)

    def git(self, *arguments: str) -> None:
        done = self.run("git", *arguments)
        assert done.returncode == 0, done.stderr

    def commit(self, message: str) -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)

    def edit(self, old: str, new: str) -> None:
        spec = self.folder / "spec.yaml"
        assert old in spec.read_text()
        spec.write_text(spec.read_text().replace(old, new))


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    folder = tmp_path / "a repository"
    shutil.copytree(EXAMPLES, folder)
    (folder / "spec.yaml").write_text(SPEC)
    repository = Repository(folder)
    repository.git("init", "-q", "-b", "main")
    assert repository.run("axoc", "plan", "spec.yaml", "--inventory", "h100-sxm-80gb:8").returncode == 0
    repository.commit("a spec and its bundle")
    return repository


def test_the_story(repository: Repository) -> None:
    assert repository.run("ci/axoc-check.sh").returncode == 0
    repository.git("checkout", "-q", "-b", "longer")
    repository.edit("max_seq_length: 2048", "max_seq_length: 8192")
    repository.commit("longer rows")

    failed = repository.run("ci/axoc-check.sh")
    assert failed.returncode == 3 and "differs: plan.json" in failed.stdout and "run axoc plan" in failed.stderr
    comment = repository.run("ci/axoc-comment.sh", "main").stdout
    assert re.search(r"dataset\.max\\_seq\\_length.*2048.*8192", comment)
    assert re.search(r"GiB", comment) and "tokens" in comment and "$" in comment
    assert repository.run("git", "status", "--porcelain").stdout == ""  # nothing was written

    assert repository.run("axoc", "plan", "spec.yaml", "--inventory", "h100-sxm-80gb:8").returncode == 0
    repository.commit("the bundle that follows")
    assert repository.run("ci/axoc-check.sh").returncode == 0
    assert repository.run("ci/axoc-comment.sh", "main").stdout == comment
    assert "the plan is the same" in repository.run("ci/axoc-comment.sh", "HEAD").stdout


def test_a_bundle_edited_by_hand_and_a_spec_that_fits_nowhere(repository: Repository) -> None:
    job = repository.folder / "bundle/job.json"
    job.write_text(job.read_text().replace('"max_steps": 300', '"max_steps": 9'))
    failed = repository.run("ci/axoc-check.sh")
    assert failed.returncode == 3 and "job.json" in failed.stdout and "where spec.yaml:4 gives 300" in failed.stdout
    repository.git("checkout", "-q", ".")
    repository.edit("training:", "distributed: {type: ddp}\ntraining:")
    repository.edit("Llama-3.1-8B", "Llama-3.1-405B")
    comment = repository.run("ci/axoc-comment.sh", "main")
    assert comment.returncode == 0 and "cannot be planned" in comment.stdout and "Traceback" not in comment.stdout


def test_an_organisations_policy_fails_the_check(repository: Repository) -> None:
    (repository.folder / "policy.yaml").write_text("policy: {max_gpus: 4}\n")
    done = repository.run("ci/axoc-check.sh", AXOC_POLICY="policy.yaml")
    assert done.returncode == 5 and "policy.yaml:1: policy.max_gpus" in done.stderr


def test_versions_live_in_one_file() -> None:
    pins = (EXAMPLES / "ci/axoc-requirements.txt").read_text()
    assert re.findall(r"(?m)^(axoc[a-z-]*)==(.+)$", pins) == [(n, axoc.__version__) for n in ("axoc", "axoc-runtime")]
    others = [p for p in EXAMPLES.rglob("*") if p.is_file() and p.name != "axoc-requirements.txt"]
    assert len(others) == 5 and not [p for p in others if axoc.__version__ in p.read_text()]


def test_the_workflow_and_the_hook_call_the_scripts_that_are_there() -> None:
    workflow = yaml.safe_load((EXAMPLES / ".github/workflows/axoc.yml").read_text())
    steps = workflow["jobs"]["plan"]["steps"]
    called = " ".join(s.get("run", "") for s in steps)
    (hook,) = yaml.safe_load((EXAMPLES / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    for path in (hook["entry"], *re.findall(r"ci/\S+\.(?:sh|txt)", called)):
        assert (EXAMPLES / path).is_file() and (path.endswith(".txt") or os.access(EXAMPLES / path, os.X_OK))
    assert "${{" not in called  # values of a pull request are data, never part of a command
    assert workflow["permissions"] == {"contents": "read", "pull-requests": "write"}
    for name, expected in (("spec.yaml", True), ("bundle/job.json", True), ("src/main.py", False)):
        assert bool(re.search(hook["files"], name)) is expected


# --- least churn


def bundle_of(folder: Path, text: str) -> dict[str, bytes]:
    from axoc import driver

    (folder / "spec.yaml").write_text(text)
    planned = driver.plan(folder / "spec.yaml", "h100-sxm-80gb:8")
    return {f.path: f.content for f in driver.bundle(planned, folder / "bundle").files}


ALWAYS = {"spec.yaml", "axoc.bundle.json", "plan.json", "job.json", "PLAN.md", "report.html"}
"""They hold the spec's text or its digest."""


@pytest.mark.parametrize(
    ("old", "new", "job", "plan"),
    [
        ("# The support", "# Our support", set(), set()),
        ("learning_rate: 1.0e-5", "learning_rate: 2.0e-5", {"training.learning_rate"}, {"training_contract"}),
        ("max_steps: 300", "max_steps: 300, seed: 7", {"training.seed"}, {"training_contract"}),
        ("max_steps: 300", "max_steps: 300, logging_steps: 5", {"training.logging_steps"}, set()),
    ],
)
def test_a_line_of_the_spec_changes_what_follows_from_it_and_nothing_else(
    tmp_path: Path, old: str, new: str, job: set[str], plan: set[str]
) -> None:
    before, after = bundle_of(tmp_path, SPEC), bundle_of(tmp_path, SPEC.replace(old, new))
    assert set(before) == set(after)
    assert {n for n in before if before[n] != after[n]} == ALWAYS
    changed = {".".join(map(str, p)) for p, _, _ in _leaves(before, after, "job.json")}
    assert changed == job | {"spec_digest"}
    assert {str(p[0]) for p, _, _ in _leaves(before, after, "plan.json")} == plan | {"spec_digest"}
    lines = _lines(after) - _lines(before)
    assert len(lines) <= 2 + len(job), lines  # of PLAN.md: the spec's digest, the contract's, and the field's own


def _leaves(
    before: dict[str, bytes], after: dict[str, bytes], name: str
) -> list[tuple[tuple[str | int, ...], object, object]]:
    return list(leaf_differences(json.loads(before[name]), json.loads(after[name])))


def _lines(side: dict[str, bytes]) -> set[str]:
    return {line for line in side["PLAN.md"].decode().splitlines() if not line.startswith("What nothing had")}
