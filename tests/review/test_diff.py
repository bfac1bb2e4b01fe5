"""`axoc diff`: causes before consequences, in a reviewer's words; nothing where nothing differs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from axoc import driver
from axoc.cli import main
from axoc.emit.write import write_bundle
from axoc.review.diff import difference
from axoc.review.diff_text import as_markdown, headline
from axoc.review.sides import read_side
from click.testing import CliRunner

SPEC = """\
model: {id: meta-llama/Llama-3.1-8B, revision: 0123456789abcdef0123456789abcdef01234567}
dataset: {path: data/train.jsonl, max_seq_length: 2048}
training: {global_batch_size: 64, max_steps: 1000}
"""
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.chdir(tmp_path)

    def made(name: str, old: str = "", new: str = "", inventory: str = "h100-sxm-80gb:8", out: str = "") -> Path:
        assert old in SPEC
        spec = tmp_path / "spec.yaml"
        spec.write_text(SPEC.replace(old, new, 1) if old else SPEC)
        folder = tmp_path / (out or name)
        write_bundle(driver.bundle(driver.plan(spec, inventory), folder), folder)
        return folder

    return made


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["diff", *arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def test_nothing_differs_from_itself_nor_from_another_layout_of_the_same_spec(make: Make) -> None:
    make("a")
    make("b", "max_seq_length: 2048}", "max_seq_length: 2_048}  # tokens\n")
    for pair in (("a", "a"), ("a", "b")):
        assert run(*pair) == (0, f"{pair[0]} -> {pair[1]}\nNo difference.\n")


def test_one_change_is_the_cause_and_what_follows_is_told_with_figures(make: Make) -> None:
    make("a")
    make("b", "max_seq_length: 2048", "max_seq_length: 16384")
    code, shown = run("a", "b")
    assert code == 3
    told = " ".join(shown.split())
    assert "because dataset.max_seq_length went from 2048 to 16384; peak" in told and "tokens/s; +$" in told
    old, new = (json.loads(Path(side, "plan.json").read_text()) for side in "ab")
    gained = new["estimate"]["memory"]["device_used_bytes"] - old["estimate"]["memory"]["device_used_bytes"]
    assert f"{'+' if gained >= 0 else '-'}{abs(gained) / 2**30:.1f} GiB" in shown
    assert "Changed\n  dataset.max_seq_length: 2048 -> 16384\n" in shown
    assert "It does not train the same\n  sequence_length: 2048 -> 16384" in shown
    assert "learning_rate" not in shown and "model.id" not in shown


def test_all_that_trains_otherwise_is_told_together(make: Make) -> None:
    make("a")
    make(
        "b",
        "global_batch_size: 64, max_steps: 1000}",
        "global_batch_size: 64, max_steps: 1000, seed: 7, learning_rate: 1.0e-4}",
    )
    _, shown = run("a", "b")
    assert "It does not train the same\n  seed: 42 -> 7\n  learning rate schedule: as before -> another\n" in shown
    make("c", "id: meta-llama/Llama-3.1-8B,", "id: Qwen/Qwen2.5-7B,")
    assert "It does not train the same\n  model.id: meta-llama/Llama-3.1-8B -> Qwen/Qwen2.5-7B\n" in run("a", "c")[1]


def test_several_changes_are_no_single_cause(make: Make) -> None:
    found = difference(*(read_side(str(p), "bundle") for p in (make("a"), make("b", "64", "128", "h100-sxm-80gb:4"))))
    assert {c.field for c in found.inputs} == {"training.global_batch_size", "inventory"}
    assert "after 2 changes" in headline(found) and "because" not in headline(found)


def test_plans_without_their_specs_claim_no_cause(make: Make) -> None:
    make("a")
    make("b", "64", "128")
    code, shown = run("a/plan.json", "b/plan.json")
    assert code == 3 and "because training" not in shown and "training.global_batch_size: 64 -> 128" in shown


def test_revisions_are_read_from_git_wherever_one_stands(make: Make, tmp_path: Path, monkeypatch: Any) -> None:
    def git(*arguments: str) -> None:
        own = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *own, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-q")
    make("first", out="bundle")
    git("add", ".")
    git("commit", "-qm", "one")
    make("second", "max_seq_length: 2048", "max_seq_length: 4096", out="bundle")
    code, shown = run("HEAD", "bundle")
    assert code == 3 and "dataset.max_seq_length: 2048 -> 4096" in shown
    assert run("HEAD:bundle", "HEAD:bundle/plan.json")[0] == 0
    (tmp_path / "deeper").mkdir()
    monkeypatch.chdir(tmp_path / "deeper")
    assert run("HEAD", "../bundle")[1].startswith("HEAD -> ../bundle\n")
    assert run("HEAD", "../bundle")[0] == 3


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("nowhere", "neither a path nor a git revision"),
        ("--output=x", "No such option"),
        ("empty", "holds no plan.json"),
        ("broken.json", "cannot be read"),
        ("other.json", "is no plan of axoc"),
        ("none.json", "no plan fitted"),
    ],
)
def test_what_is_no_plan_is_named(make: Make, tmp_path: Path, written: str, told: str) -> None:
    make("a")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "other.json").write_text("[]")
    (tmp_path / "none.json").write_text('{"plan": null, "decisions": [], "estimate": {}}')
    code, shown = run("a", written)
    assert code in (1, 2) and told in shown


def test_another_strategy_says_whether_the_old_checkpoints_still_serve(make: Make) -> None:
    make("a", "training: {", "distributed: {type: zero2}\ntraining: {")
    make("b", "training: {", "distributed: {type: fsdp}\ntraining: {")
    shown = run("a", "b")[1]
    assert "Not resumable" in shown and "the old plan's checkpoints can be resumed by" in shown
    assert "config/deepspeed.json: present -> (absent)" in shown
    assert "Not resumable" not in run("a", "a")[1]


def test_a_comment_acts_on_nothing_that_a_spec_says(make: Make) -> None:
    """Markdown in values is shown as it is, and no one is called by name."""
    evil = "data/@team_<b>#1`x`|.jsonl"
    sides = [read_side(str(p), "bundle") for p in (make("a"), make("b", "data/train.jsonl", f"'{evil}'"))]
    found = difference(*sides)
    comment = as_markdown(found, *sides)
    assert "&#64;team\\_&lt;b&gt;\\#1\\`x\\`\\|.jsonl" in comment
    assert "@team" not in comment and "<b>" not in comment


def test_json_holds_the_same(make: Make) -> None:
    make("a")
    make("b", "64", "128")
    code, shown = run("a", "b", "--format", "json")
    found = json.loads(shown)
    assert code == 3 and found["differs"] and found["inputs"][0]["field"] == "training.global_batch_size"
    assert {"name": "accelerators", "old": 8, "new": 8, "unit": "number"} in found["figures"]
