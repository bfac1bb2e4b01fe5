"""What is found wrong after the spec was read still names file, line and column, and all of it at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from axoc.cli import main
from click.testing import CliRunner


def told(monkeypatch: pytest.MonkeyPatch, folder: Path, spec: str, *options: str) -> list[str]:
    """First lines of the problems."""
    monkeypatch.chdir(folder)
    Path("spec.yaml").write_text(spec)
    done = CliRunner().invoke(main, ["plan", "spec.yaml", "--dry-run", *options])
    assert done.exit_code == 1, done.output
    return [line for line in done.stderr.splitlines() if not line.startswith("  ")]


def test_look_ups_that_fail_are_told_together_and_placed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = """\
model: {id: acme/Super-9B}
dataset: {path: rows.jsonl}
distributed: {config_path: ds.json}
plugins: [nowhere]
inventory: h100
"""
    assert told(monkeypatch, tmp_path, spec) == [
        "spec.yaml:1:8: the shape of acme/Super-9B is not in the catalog, and model.config is not given",
        "spec.yaml:5:12: inventory: 'h100' is not an accelerator that axoc knows",
        "ds.json: cannot read distributed.config_path: No such file or directory",
        "nowhere: plugins: no such folder",
    ]


def test_an_inventory_of_the_command_line_is_not_the_spec_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = "model: Qwen/Qwen2.5-0.5B\ninventory: cpu\n"
    assert told(monkeypatch, tmp_path, spec, "--inventory", "h100") == [
        "inventory: 'h100' is not an accelerator that axoc knows"
    ]


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("adapter: {targets: [q_proj, k_prj]}", "spec.yaml:2:20: adapter.targets: "),
        ("distributed: {gpu_count: 99}", "spec.yaml:2:26: distributed.gpu_count is 99"),
    ],
)
def test_what_the_search_finds_is_placed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, place: str
) -> None:
    spec = f"model: Qwen/Qwen2.5-0.5B\n{line}\ninventory: h100-sxm-80gb:8\n"
    (problem,) = told(monkeypatch, tmp_path, spec)
    assert problem.startswith(place)
