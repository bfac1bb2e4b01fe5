"""spec.lock: rows, digests and bytes of local data; the same facts give the same text, and it reads back."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import pytest
from axoc.errors import UserError
from axoc.facts.lock import lock_text, parse_lock, resolve
from axoc.facts.rows import count_rows
from axoc.ir.facts import DataFacts


@dataclass(frozen=True)
class Dataset:
    path: str | None
    on_bad_row: str = "fail"


def facts(folder: Path, *written: str | None) -> tuple[DataFacts, ...]:
    return resolve([Dataset(w) for w in written], lambda path: folder / path)


@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        ("a.json", '[{"x": 1}, {"x": 2}]', 2),
        ("lines.json", '{"x": 1}\n{"x": 2}\n{"x": 3}\n', 3),
        ("nested.json", '{"data": [1, 2]}', None),
        ("a.jsonl", '{"x": 1}\n\n{"x": 2}', 2),
        ("a.csv", 'q,a\n1,"two\nlines"\n3,4\n', 2),
        ("a.tsv", "q\ta\n1\t2\n", 1),
        ("empty.csv", "", 0),
        ("list.jsonl", '[{"x": 1}, {"x": 2}]', 2),
        ("pretty.jsonl", '[\n {\n  "x": 1\n },\n {\n  "x": 2\n }\n]\n', 2),
        ("cut.jsonl", '[\n{"x": 1}\n{"x": 2}\n', 3),  # lines, the first of them damaged
        ("latin.csv", b"q,a\n1,\xe9\n", 1),
        ("a.txt", "one\ntwo\n", None),
        ("a.parquet", "PAR1", None),
    ],
)
def test_rows(tmp_path: Path, name: str, content: str | bytes, rows: int | None) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert count_rows(tmp_path / name) == rows


def test_a_file_that_is_not_what_its_name_says(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{not json")
    with pytest.raises(UserError, match="not JSON"):
        facts(tmp_path, "bad.json")


@pytest.mark.parametrize("on_bad_row", ["drop", "quarantine"])
def test_rows_that_are_left_out_stop_no_lock(tmp_path: Path, on_bad_row: str) -> None:
    """The run goes on without them: how many are left is not known."""
    (tmp_path / "bad.json").write_text('[{"x": 1},\n{"x": ,\n{"x": 3}]')
    (found,) = resolve([Dataset("bad.json", on_bad_row)], lambda path: tmp_path / path)
    assert found.rows is None and found.sha256 is not None


def test_one_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"x": 1}\n')
    (found,) = facts(tmp_path, "a.jsonl")
    assert found == DataFacts(path="a.jsonl", rows=1, bytes=9, sha256=hashlib.sha256(b'{"x": 1}\n').hexdigest())


def test_folder_and_glob_count_all_files_and_notice_a_renamed_one(tmp_path: Path) -> None:
    for name in ("d/a.jsonl", "d/b.jsonl"):
        (tmp_path / "d").mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"x": 1}\n')
    (tmp_path / "d/readme").write_text("no data")
    folder, glob = facts(tmp_path, "d", "d/*.jsonl")
    assert (folder.rows, folder.bytes, glob.rows) == (2, 18, 2)
    (tmp_path / "d/b.jsonl").rename(tmp_path / "d/c.jsonl")
    assert facts(tmp_path, "d")[0].sha256 != folder.sha256


def test_what_is_not_local_stays_unknown(tmp_path: Path) -> None:
    for written in ("tatsu-lab/alpaca", "s3://bucket/x.jsonl", None):
        assert facts(tmp_path, written) == (DataFacts(path=written),)


def test_round_trip_and_determinism() -> None:
    data = (DataFacts(path="dä ta.jsonl", rows=3, bytes=9, sha256="0" * 64), DataFacts(path=None))
    text = lock_text("org/model", None, data)
    assert text == lock_text("org/model", None, data)
    assert parse_lock(text) == data
    assert text.startswith("version: 1\nmodel:\n  id: org/model\n  revision: null\ndatasets:\n")
    assert parse_lock(lock_text(None, None, ())) == ()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("version: 3\ndatasets: []\n", 1),
        ("version: 1\ndatasets: {}\n", 2),
        ("version: 1\ndatasets:\n- {path: a, row: 3}\n", 3),
        ("version: 1\ndatasets:\n- {path: a, rows: many}\n", 3),
        ("version: 1\ndatasets:\n- {path: a, rows: -1}\n", 3),
        ("version: 1\nmodle: {}\n", 2),
    ],
)
def test_broken_locks_name_the_line(text: str, line: int) -> None:
    with pytest.raises(UserError) as caught:
        parse_lock(text, "spec.lock")
    assert (caught.value.diagnostics[0].file, caught.value.diagnostics[0].line) == ("spec.lock", line)
