"""The whole profile of models that are quantized for real: rows, errors that are rows, what is not done again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axoc_runtime.errors import RuntimeFailure
from axoc_runtime.quantize import stages
from axoc_runtime.quantize.methods import UNQUANTIZED, read_methods
from axoc_runtime.quantize.profile import parser
from axoc_runtime.quantize.run import run
from axoc_runtime.quantize.settings import Settings
from axoc_runtime.quantize.texts import keep_windows
from exports.tiny import run_of, tokenizer_of

from quantize.workers import forking_python

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
SMOL = ROOT / "models" / "SmolLM2-135M-Instruct"
Profile = Callable[..., int]


def arguments(model: Path, methods: str, output: Path) -> list[str]:
    named = {"model": model, "quant-methods": methods, "output-dir": output, "gpu-count": 0}
    return [text for name, value in named.items() for text in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def python() -> Iterator[str]:
    with forking_python() as python:
        yield python


@pytest.fixture
def profile(python: str, monkeypatch: pytest.MonkeyPatch) -> Profile:
    """A profile in this process, with forked workers; gives its exit code."""

    def call(model: Path, methods: str, output: Path, *more: str) -> int:
        given = parser().parse_args([*arguments(model, methods, output), *more])
        with monkeypatch.context() as patch:
            patch.setattr(os, "environ", os.environ | {"OMP_NUM_THREADS": "1"})
            patch.setattr(sys, "executable", python)
            return run(given)

    return call


def command(model: Path, methods: str, output: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """As a user starts it: the command, the profile and its workers are processes of their own."""
    line = [sys.executable, "-m", "axoc.cli", "quant-profile", *arguments(model, methods, output), *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)


def report(output: Path) -> dict[str, Any]:
    return dict(json.loads((output / "profile.json").read_text()))


def test_rows_errors_and_what_was_measured_before(
    tmp_path: Path, profile: Profile, capsys: pytest.CaptureFixture[str]
) -> None:
    model = run_of("llama", tmp_path / "run", intermediate_size=144) / "final"
    output = tmp_path / "out put"
    few = ("--windows", "4", "--window-tokens", "96")
    assert profile(model, "gguf:q4_0,gptq,gguf:q8_0", output, *few) == 18  # GPTQ's groups divide no 144 columns
    said = capsys.readouterr().out
    rows = {row["method"]: row for row in report(output)["rows"]}
    assert list(rows) == ["none", "gguf:q4_0", "gptq", "gguf:q8_0"]
    assert "columns divides all of" in rows["gptq"]["error"] and "perplexity" not in rows["gptq"]
    assert "GQA (4 heads, 2 of keys and values" in said and "gptq" in said
    assert rows["gguf:q8_0"]["size_bytes"] < rows["none"]["size_bytes"] / 2
    apart = {name: abs(rows[name]["perplexity_change"]["value"]) for name in ("gguf:q4_0", "gguf:q8_0")}
    assert apart["gguf:q8_0"] < min(0.01, apart["gguf:q4_0"])
    assert rows["gguf:q8_0"]["same_top_token"] > rows["gguf:q4_0"]["same_top_token"]
    assert rows["gguf:q8_0"]["runner"].startswith("llama.cpp") and rows["gguf:q8_0"]["write_speed"]["median"] > 0
    assert sorted(p.name for p in output.iterdir() if not p.name.startswith(".")) == [
        "logs", "measurements", "profile.json", "profile.md", "profile.svg", "recommended.yaml",
    ]  # fmt: skip
    again = command(model, "gguf:q4_0,gguf:q8_0", output, *few)
    assert again.returncode == 0 and again.stdout.count("measured before") == 3 and "measuring" not in again.stdout
    assert list(report(output)["rows"]) == [rows[n] for n in ("none", "gguf:q4_0", "gguf:q8_0")]
    (model / "generation_config.json").write_text("{}")
    other = command(model, "none", output, *few)  # another model in the same folder
    assert other.stdout.count("measured before") == 0 and other.returncode == 0


def test_five_methods_of_a_real_model(tmp_path: Path, profile: Profile) -> None:
    if not SMOL.is_dir():
        pytest.skip("make models/SmolLM2-135M-Instruct/config.json")
    few = ["--windows", "6", "--window-tokens", "64", "--calibration-rows", "2", "--calibration-tokens", "64"]
    few += ["--method-seconds", "1"]  # all windows are read, and little is written
    assert profile(SMOL, "gptq,gguf,nf4,fp8,int8", tmp_path, *few) == 0
    rows = {row["method"]: row for row in report(tmp_path)["rows"]}
    assert report(tmp_path)["attention"]["kind"] == "GQA"
    for name, row in rows.items():
        assert row["size_bytes"] < (600e6 if name == "none" else 200e6) and row["peak_bytes"] > 100e6, name
        assert row["perplexity"] < 100, name  # of 49,152 tokens: it still speaks
    assert abs(rows["int8"]["perplexity_change"]["value"]) < 0.1 < rows["nf4"]["perplexity_change"]["value"]
    assert rows["nf4"]["peak_bytes"] < rows["none"]["peak_bytes"]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        model=str(tmp_path), model_id="m", output=str(tmp_path / "out"), data=None, gpus=0, windows=4, window_tokens=8,
        calibration_rows=2, calibration_tokens=8,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ends", "told"), [("kill -9 $$", "memory ends"), ("exit 7", "code 7"), ("echo '@ 1/2'; exit 0", "code 0")]
)
def test_a_crash_is_a_row(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: str, told: str
) -> None:
    crashing = tmp_path / "python"
    crashing.write_text(f"#!/bin/sh\n{ends}\n")
    crashing.chmod(0o755)
    monkeypatch.setattr(stages.sys, "executable", str(crashing))
    found = stages.Stages(settings).run(read_methods(("nf4",))[1], "nf4")
    assert told in found["error"] and found["measured"] is None
    assert stages.Stages(settings).run(UNQUANTIZED, "none")["error"] and tmp_path.is_dir()


def test_no_document_is_both_calibrated_with_and_held_out(tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    words = ["alpha " * 30, "beta " * 30]
    data.write_text("".join(json.dumps({"role": "x", "turns": [{"content": words[i % 2]}]}) + "\n" for i in range(20)))
    tokenizer = tokenizer_of(False)
    told = keep_windows(tmp_path, tokenizer, data, (4, 16, 2, 16))
    kept = json.loads((tmp_path / "texts.json").read_text())
    held, seen = (tokenizer.decode(ids) for ids in (kept["measured"][0]["ids"], kept["calibration"][0]))
    assert "beta" in held and "alpha" not in held and "alpha" in seen and "beta" not in seen
    assert told == "rows.jsonl, every other document" and len(kept["measured"]) == 4
    with pytest.raises(RuntimeFailure, match=r"has \d windows of 2000"):
        keep_windows(tmp_path, tokenizer, data, (4, 2000, 2, 16))


def test_methods_that_there_are_not_are_named_with_those_that_there_are() -> None:
    assert [m.written for m in read_methods(("gguf", "gguf:q4_k_m", "nf4"))] == [
        "safetensors", "gguf:q4_k_m", "safetensors:nf4",
    ]  # fmt: skip
    for wrong in ("nf5", "gguf:q9", "house:int4"):
        with pytest.raises(RuntimeFailure) as caught:
            read_methods((wrong,))
        assert wrong.split(":")[-1] in str(caught.value) or wrong.split(":")[0] in str(caught.value)
