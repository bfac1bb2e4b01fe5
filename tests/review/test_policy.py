"""Policy: exit 5, every broken clause named, nothing written; what cannot be judged is not let through."""

from __future__ import annotations

from pathlib import Path

import pytest
from axoc.cli import main
from click.testing import CliRunner

SPEC = """\
model: Qwen/Qwen2.5-0.5B
dataset: {path: org/data}
training: {max_steps: 100}
policy: {%s}
"""


def plan(folder: Path, policy: str, *options: str, steps: bool = True) -> tuple[int, str]:
    spec = folder / "spec.yaml"
    text = SPEC % policy
    spec.write_text(text if steps else text.replace("training: {max_steps: 100}\n", ""))
    command = ["plan", str(spec), "--inventory", "h100-sxm-80gb:8", "--out", str(folder / "bundle"), *options]
    done = CliRunner().invoke(main, command)
    return done.exit_code, done.output


def test_within_the_limits(tmp_path: Path) -> None:
    assert plan(tmp_path, "max_cost_usd: 100, max_hours: 10, max_gpus: 8")[0] == 0
    assert (tmp_path / "bundle").is_dir()


def test_every_broken_clause_is_named_and_nothing_written(tmp_path: Path) -> None:
    code, shown = plan(tmp_path, "max_cost_usd: 0.01, max_hours: 0.0001, max_gpus: 2, allowed_images: [ubuntu]")
    assert code == 5
    for clause in ("max_cost_usd", "max_hours", "max_gpus", "allowed_images"):
        assert f"policy.{clause}" in shown
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("options", [["--dry-run"], ["--dry-run", "--format", "json"]])
def test_a_dry_run_is_refused_too(tmp_path: Path, options: list[str]) -> None:
    assert plan(tmp_path, "max_gpus: 2", *options)[0] == 5


def test_a_cost_that_is_not_known_is_not_let_through(tmp_path: Path) -> None:
    code, shown = plan(tmp_path, "max_cost_usd: 100", steps=False)
    assert code == 5 and "not known" in shown and "axoc lock" in shown


def test_check_uses_the_inventory_the_bundle_was_planned_for(tmp_path: Path) -> None:
    assert plan(tmp_path, "max_gpus: 8")[0] == 0
    command = ["plan", str(tmp_path / "spec.yaml"), "--check", "--out", str(tmp_path / "bundle")]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    (tmp_path / "spec.yaml").write_text((SPEC % "max_gpus: 8").replace("100", "200"))
    assert CliRunner().invoke(main, command).exit_code == 3
