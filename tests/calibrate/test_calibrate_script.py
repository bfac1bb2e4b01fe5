"""The calibration script, run small on a CPU: what it writes, and what it says when it cannot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from axoc.cli import main
from click.testing import CliRunner

ROOT = Path(__file__).resolve().parents[2]
QUICK = "matmul,attention,pointwise,loss,copies,embedding,host_operations,optimizer_on_host,memory"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "axoc_runtime.calibrate", *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT / "runtime")} | environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def here() -> Callable[..., int]:
    """The script in this process: libraries are imported once. What it sets is for a process of its own, and not kept."""
    with pytest.MonkeyPatch.context() as importing:
        importing.setattr(os, "environ", dict(os.environ))
        import torch
        from axoc_runtime.calibrate.__main__ import main

    def call(*arguments: str) -> int:
        threads = torch.get_num_threads()
        try:
            with warnings.catch_warnings():
                return main(["--device", "cpu", *arguments])
        finally:
            torch.set_num_threads(threads)

    return call


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("profile") / "cpu.json"
    done = run("--device", "cpu", "--only", QUICK, "--check", "--seconds", "300", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "Written: " in done.stderr and "matmul" in done.stderr
    made: dict[str, Any] = json.loads(out.read_text())
    return made


@pytest.mark.slow
def test_every_table_has_its_rows(profile: dict[str, Any]) -> None:
    tables = profile["tables"]
    assert set(tables) == set(QUICK.split(",")) - {"memory"}
    for name, table in tables.items():
        assert table["rows"], name
        assert all(len(row) == len(table["columns"]) for row in table["rows"]), name
    seconds = [row[-1] for row in tables["matmul"]["rows"]]
    assert all(0 < s < 1 for s in seconds)
    layouts = {(row[0], row[1]) for row in tables["matmul"]["rows"]}
    assert layouts == {(d, layout) for d in ("bf16", "fp32") for layout in ("nt", "nn", "tn")}


@pytest.mark.slow
def test_it_says_where_it_was_measured_and_what_is_missing(profile: dict[str, Any]) -> None:
    assert profile["schema_version"] == 1
    assert profile["device"]["type"] == "cpu" and profile["device"]["name"]
    assert profile["versions"]["torch"]
    assert profile["missing"]["memory"] == ["start: no driver to ask"]


@pytest.mark.slow
def test_the_check_lists_each_operation_of_a_piece(profile: dict[str, Any]) -> None:
    found = {(e["case"], e["pass"]): e for e in profile["check"]}
    forward, both = found["block", "forward"], found["block", "forward and backward"]
    products = {e: sum(r[1] for r in found[e]["rows"] if r[0].startswith("aten.mm")) for e in found}
    assert products["block", "forward"] == 7  # q, k, v, o, gate, up, down
    assert products["block", "forward and backward"] == 21  # and two gradients of each
    assert both["operations"] > forward["operations"] > 30
    assert not both["not_timed"]
    assert forward["sum_cold_seconds"] == pytest.approx(sum(r[1] * r[2] for r in forward["rows"]), rel=1e-3)


@pytest.mark.slow
def test_a_missing_package_leaves_its_table_out(tmp_path: Path, here: Callable[..., int]) -> None:
    out = tmp_path / "p.json"
    assert here("--only", "liger", "--out", str(out), "--quiet") == 0
    made = json.loads(out.read_text())
    assert "liger" not in made["tables"]
    assert made["missing"]["liger"] == ["needs liger_kernel, which is not installed"]


@pytest.mark.slow
def test_out_of_time_is_said(tmp_path: Path, here: Callable[..., int]) -> None:
    out = tmp_path / "p.json"
    assert here("--only", "matmul", "--seconds", "0", "--out", str(out), "--quiet") == 0
    assert json.loads(out.read_text())["missing"]["matmul"] == ["out of time after 0 of 6 points"]


@pytest.mark.slow
def test_what_cannot_be_done_is_said(
    tmp_path: Path, here: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert here("--out", str(tmp_path / "none" / "p.json")) == 1
    assert "its folder does not exist" in capsys.readouterr().err
    assert here("--only", "matmull", "--out", str(tmp_path / "p.json")) == 1
    assert "no such table: matmull" in capsys.readouterr().err


def test_the_command_needs_a_python(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["calibrate", "--out", str(tmp_path / "p.json"), "--python", str(tmp_path / "no")])
    assert done.exit_code == 1 and "cannot be started" in done.stderr


@pytest.mark.slow
def test_the_command_passes_on_that_there_is_no_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Which the script says, and ends with 11."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done = CliRunner().invoke(main, ["calibrate", "--out", str(tmp_path / "p.json")])
    assert done.exit_code == 1 and "cannot be calibrated" in done.stderr
    assert "--device cpu" in capfd.readouterr().err
