"""One row in a hundred is damaged, in twelve ways: each is told with its place, no sound row is, and none is lost."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from axoc_runtime import prepare
from axoc_runtime.datacheck import check as datacheck
from axoc_runtime.datacheck.job import DataJob, DataModel, DataTraining
from axoc_runtime.errors import RuntimeFailure
from axoc_runtime.models import tokenizer as loading
from axoc_runtime.preparation.whole import read_report
from seeing import MODELS

from runtime.faults import TEXTS, Kind, Planted, damaged_file
from runtime.jobs import make_job
from runtime.picture_faults import PICTURES, pictures

ROWS = 2400
WANTED = {"dataset__support_tool_calls": True, "dataset__max_seq_length": 4096}


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch, tokenizer: Any) -> None:
    for module in (prepare, loading):
        monkeypatch.setattr(module, "load_tokenizer", lambda job: tokenizer)
    monkeypatch.setattr(prepare, "check_vocabulary", lambda job, highest: None)


def data_job(folder: Path, name: str, *, sees: bool = False) -> DataJob:
    job = make_job(folder, **WANTED, dataset__path=name)
    model = DataModel(id="model", revision=None, trust_remote_code=False, tokenizer=job.model.tokenizer, vision=sees)
    training = DataTraining(objective="sft", grpo=None)
    return DataJob(
        schema_version=1, base_dir=".", model=model, datasets=job.datasets, training=training, output_dir="out",
        logging_level="INFO", plugins=(), bundle_dir=folder, base=folder,
    )  # fmt: skip


def reported(report: Path) -> list[tuple[int, int, str]]:
    with report.open(encoding="utf-8", newline="") as file:
        return [(int(r["row"]), int(r["byte"]), r["check"]) for r in csv.DictReader(file) if r["row"]]


def expected(planted: list[Planted]) -> list[tuple[int, int, str]]:
    return [(p.line, p.offset, p.check) for p in planted]


def examine(
    folder: Path, count: int, capsys: pytest.CaptureFixture[str], name: str = "data.jsonl", kind: Kind = TEXTS
) -> None:
    planted = damaged_file(folder / name, count, kind_of_rows=kind)
    assert Counter(p.damage for p in planted).keys() == kind.damages.keys()
    capsys.readouterr()
    assert datacheck.run(data_job(folder, name, sees=kind is not TEXTS), None, as_json=True) == 1
    told = json.loads(capsys.readouterr().out)
    assert sorted(reported(folder / "out/data-check.csv")) == expected(planted)
    (account,) = told["datasets"]
    copies = sum(p.damage == "copy" for p in planted)
    assert account["rows"] == count == account["used"] + account["listed"]
    assert account["listed"] == len(planted) - copies


@pytest.mark.parametrize("name", ["data.jsonl", "data.json"])
def test_every_damaged_row_is_told_and_no_other(
    tmp_path: Path, tokens: None, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Lines, and one list of all rows."""
    examine(tmp_path, ROWS // 2, capsys, name)


@pytest.fixture
def seeing(tmp_path: Path) -> Path:
    """A folder with a model's processor, and the images that rows name."""
    MODELS["llava"](tmp_path / "model")
    pictures(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("name", ["data.jsonl", "data.json"])
def test_of_rows_with_images_too(seeing: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    examine(seeing, ROWS // 2, capsys, name, PICTURES)


@pytest.mark.slow
def test_rows_with_images_are_kept_aside_at_launch(seeing: Path) -> None:
    planted = damaged_file(seeing / "data.jsonl", ROWS // 2, kind_of_rows=PICTURES)
    job = make_job(seeing, **WANTED, dataset__on_bad_row="quarantine", model__vision=True)
    prepare.run(job)
    assert sorted(reported(seeing / "out/data-check.csv")) == expected(planted)
    kept = [json.loads(line) for line in (seeing / "out/quarantine.jsonl").read_text().splitlines()]
    assert [k["row"] for k in kept] == [p.line for p in planted if p.damage != "copy"]
    report = read_report(prepare.prepared_folder(job))
    assert report["datasets"][0]["used"] + len(kept) == report["datasets"][0]["rows"] == ROWS // 2


@pytest.mark.slow
def test_of_each_damage_several_times_too(tmp_path: Path, tokens: None, capsys: pytest.CaptureFixture[str]) -> None:
    """In eight batches of rows."""
    examine(tmp_path, 4000, capsys)


def test_at_launch_they_stop_the_run_or_are_kept_aside(tmp_path: Path, tokens: None) -> None:
    planted = damaged_file(tmp_path / "data.jsonl", ROWS)
    unusable = [p for p in planted if p.damage != "copy"]
    with pytest.raises(RuntimeFailure, match=f"{len(unusable)} rows cannot be used") as caught:
        prepare.run(make_job(tmp_path, **WANTED))
    assert f"data.jsonl:{unusable[0].line}: " in str(caught.value) and caught.value.exit_code == 13
    assert sorted(reported(tmp_path / "out/data-check.csv")) == expected(planted)

    job = make_job(tmp_path, **WANTED, dataset__on_bad_row="quarantine")
    prepare.run(job)
    assert sorted(reported(tmp_path / "out/data-check.csv")) == expected(planted)
    kept = [json.loads(line) for line in (tmp_path / "out/quarantine.jsonl").read_text().splitlines()]
    assert [(k["row"], k["byte"]) for k in kept] == [(p.line, p.offset) for p in unusable]
    assert all(k["problems"] and (k.get("raw") or "content" in k) for k in kept)
    report = read_report(prepare.prepared_folder(job))
    assert report["datasets"][0]["rows"] == ROWS == report["datasets"][0]["used"] + len(unusable)
    assert report["train_rows"] + report["held_out_rows"] == ROWS - len(unusable)


def test_dropped_rows_are_listed_and_not_kept(tmp_path: Path, tokens: None) -> None:
    planted = damaged_file(tmp_path / "data.jsonl", ROWS)
    prepare.run(make_job(tmp_path, **WANTED, dataset__on_bad_row="drop"))
    assert sorted(reported(tmp_path / "out/data-check.csv")) == expected(planted)
    assert not (tmp_path / "out/quarantine.jsonl").exists()
