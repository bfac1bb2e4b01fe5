"""`axoc data check` as people call it: a process that reads the rows of a spec with the runtime."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from axoc.review.data import data_dict
from axoc.spec.load import load_spec

SPEC = """\
version: 1
model: {id: no/such-model-here, config: config.json}
dataset:
  - {path: DATA/good.jsonl, validation_split: 0}
  - {path: DATA/bad.csv, type: alpaca, validation_split: 0}
  - {path: DATA/gone.jsonl}
output_dir: OUT
"""


def check(folder: Path, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "axoc", "data", "check", str(folder / "spec.yaml"), *more]
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(command, cwd=folder, env=offline, capture_output=True, text=True, timeout=300)


def write(folder: Path) -> None:
    (folder / "spec.yaml").write_text(SPEC.replace("DATA", "data").replace("OUT", "out"))
    (folder / "data").mkdir()
    rows = [{"question": f"What is {i}?", "answer": f"The number {i}."} for i in range(3)]
    (folder / "data/good.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "data/bad.csv").write_text('instruction,output\nsay hi,hi\nsay,"ho" ho\nhey,\n')


def test_the_runtime_reads_what_the_compiler_writes(tmp_path: Path) -> None:
    from axoc_runtime.datacheck.job import read_data_job

    request = load_spec(SPEC.encode(), "spec.yaml")
    (tmp_path / "data.json").write_text(json.dumps(data_dict(request)))
    job = read_data_job(tmp_path / "data.json")
    assert [d.path for d in job.datasets] == ["DATA/good.jsonl", "DATA/bad.csv", "DATA/gone.jsonl"]
    assert job.base == Path.cwd()


@pytest.mark.slow
def test_everything_wrong_is_told_at_once_with_its_place(tmp_path: Path) -> None:
    write(tmp_path)
    done = check(tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr + done.stdout, done.stderr
    assert "\x1b[" not in done.stdout
    for told in (
        "data/bad.csv:3 (byte 29): not CSV", "data/bad.csv:4 (byte 41): output is empty", "data/gone.jsonl",
        "3 rows read = 3 used + 0 listed", "3 rows read = 1 used + 2 listed", "note: lengths",
    ):  # fmt: skip
        assert told in done.stdout, told
    report = list(csv.DictReader((tmp_path / "out/data-check.csv").open(newline="")))
    assert [(r["file"], r["row"], r["check"]) for r in report] == [
        ("data/bad.csv", "3", "malformed"),
        ("data/bad.csv", "4", "empty"),
        ("data/gone.jsonl", "", "file"),
    ]
    assert {p.name for p in tmp_path.iterdir()} == {"spec.yaml", "data", "out"}


@pytest.mark.slow
def test_json_and_exit_0_where_only_warnings_are_left(tmp_path: Path) -> None:
    write(tmp_path)
    spec = (tmp_path / "spec.yaml").read_text().splitlines()
    spec = [line for line in spec if "bad.csv" not in line and "gone" not in line]
    (tmp_path / "spec.yaml").write_text("\n".join(spec))
    with (tmp_path / "data/good.jsonl").open("a") as file:
        file.write(json.dumps({"question": "What is 0?", "answer": "The number 0."}) + "\n")
    done = check(tmp_path, "--format", "json", "--report", "mine.csv")
    told = json.loads(done.stdout)
    assert done.returncode == 0 and told["findings"] == {"error": {}, "left out": {}, "warning": {"duplicate": 1}}
    assert (told["datasets"][0]["rows"], told["datasets"][0]["used"]) == (4, 4)
    assert (tmp_path / "mine.csv").is_file()


def test_a_spec_that_is_wrong_or_names_no_data_says_so(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("version: 1\nmodel: {id: a/b}\n")
    done = check(tmp_path)
    assert done.returncode == 1 and "names no path" in done.stderr and "Traceback" not in done.stderr
    done = check(tmp_path, "--python", "/no/such/python")
    assert done.returncode == 1 and "Traceback" not in done.stderr
