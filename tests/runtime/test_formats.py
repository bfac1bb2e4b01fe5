"""Readers and schemas: what each reads, how it is recognized, and that what is wrong names file, row and column."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from axoc_runtime.errors import RuntimeFailure
from axoc_runtime.ingest import registry
from axoc_runtime.ingest.base import BadRow, Conversation, Document, Reader, Record, Schema, Source
from axoc_runtime.ingest.registry import formats, named, schema_for
from axoc_runtime.ingest.sources import fingerprints, parts, records
from axoc_runtime.job import DatasetJob

DATASET = DatasetJob(
    path="data.jsonl", type="auto", weight=1.0, validation_split=0.0, split_seed=1, system_prompt=None,
    support_tool_calls=False, max_seq_length=64, packing=False, streaming=False, truncation="right",
    train_on="assistant", on_bad_row="fail", options={},
)  # fmt: skip


class Here:
    """A job that knows only where its paths count from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def resolve(self, written: str) -> Path:
        return self.folder / written


def rows(folder: Path, path: str, **changes: Any) -> list[Record]:
    return list(records(Here(folder), replace(DATASET, path=path, **changes)))  # type: ignore[arg-type]


CONTENT = {
    "a.jsonl": b'{"text": "one"}\n\n{"text": "two"}\n',
    "a.json": b'[{"text": "one"}, {"text": "two"}]',
    "nested.json": b'{"version": 1, "data": [{"text": "one"}, {"text": "two"}]}',
    "lines.json": b'{"text": "one"}\n{"text": "two"}',
    "bom.csv": b"\xef\xbb\xbftext,n\r\none,1\r\ntwo,2\r\n",
    "a.tsv": b"text\tn\none\t1\ntwo\t2\n",
}


@pytest.mark.parametrize("name", CONTENT)
def test_files_of_every_kind_give_the_same_rows(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(CONTENT[name])
    assert [r.row["text"] for r in rows(tmp_path, name)] == ["one", "two"]


def test_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": ["one", "two"]}), tmp_path / "a.parquet")
    assert [r.row["text"] for r in rows(tmp_path, "a.parquet")] == ["one", "two"]


def test_folders_and_globs_are_read_in_order(tmp_path: Path) -> None:
    for name, text in (("d/b.jsonl", "two"), ("d/a.jsonl", "one"), ("d/README", "no data")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"text": text}))
    assert [r.row["text"] for r in rows(tmp_path, "d")] == ["one", "two"]
    assert [r.row["text"] for r in rows(tmp_path, "d/*.jsonl")] == ["one", "two"]


def test_a_text_file_is_one_document(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo")
    assert [r.row for r in rows(tmp_path, "a.txt")] == [{"text": "one\ntwo"}]


BAD_ROWS = {
    "bad.jsonl": (b'{"text": "one"}\n{"text": \n', "bad.jsonl:2", 16, "malformed"),
    "list.jsonl": (b"[1, 2]\n", "list.jsonl:1", 0, "malformed"),
    "deep.jsonl": (b"[" * 100_000 + b"\n", "deep.jsonl:1", 0, "malformed"),
    "mixed.json": (b'[{"a": 1}, 2]', "mixed.json[1]", 11, "malformed"),
    "cut.json": (b'[{"text": "one"}, {"text": "tw', "cut.json[1]", 18, "malformed"),
    "latin.json": ('[{"a": "é"}, '.encode() + b'{"a": "\xe9"}, {"a": 3}]', "latin.json[1]", 14, "encoding"),
    "comma.json": (b'[{"a": 1}, {"a": 2} {"a": 3}]', "comma.json[1]", 11, "malformed"),
    "wide.csv": (b"a,b\n1,2\n1,2,3\n", "wide.csv:3", 8, "malformed"),
    "short.csv": (b"a,b\n1\n", "short.csv:2", 4, "malformed"),
    "quote.csv": (b'a,b\n"x"y,2\n', "quote.csv:2", 4, "malformed"),
    "open.csv": (b'a,b\n1,2\n"x,2\n3,4\n', "open.csv:3", 8, "malformed"),
    "latin.csv": ("a,b\né,1\n".encode("latin-1"), "latin.csv:2", 4, "encoding"),
    "latin.jsonl": ('{"text": "é"}'.encode("latin-1"), "latin.jsonl:1", 0, "encoding"),
    "latin.txt": ("é".encode("latin-1"), "latin.txt", 0, "encoding"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_broken_row_is_given_with_its_place_and_the_others_are_read(tmp_path: Path, name: str) -> None:
    content, place, offset, check = BAD_ROWS[name]
    (tmp_path / name).write_bytes(content)
    (bad,) = [r for r in rows(tmp_path, name) if r.problem]
    assert (bad.place, bad.offset, bad.row) == (place, offset, {})
    assert bad.problem is not None and bad.problem.check == check and bad.problem.fix


def test_another_delimiter(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text;n\none, two;2\n")
    assert [r.row for r in rows(tmp_path, "a.csv", options={"delimiter": ";"})] == [{"text": "one, two", "n": "2"}]
    for wrong in ("", ";;", '"', 7):
        with pytest.raises(RuntimeFailure, match="no single character"):
            rows(tmp_path, "a.csv", options={"delimiter": wrong})


def test_rows_after_a_broken_one_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "one"}\n{"te\n\xff\n{"text": "two"}\n')
    (tmp_path / "a.csv").write_bytes(b'text,n\none,1\nx,y,z\n"a"b,1\ntwo,2\n')
    for name in ("a.jsonl", "a.csv"):
        found = rows(tmp_path, name)
        assert [bool(r.problem) for r in found] == [False, True, True, False]
        assert [r.row["text"] for r in found if not r.problem] == ["one", "two"]


BROKEN = {
    "bad.json": (b"[{]", "bad.json: not JSON: .* byte 1"),
    "two.json": (b'[{"a": 1}] [2]', "two.json: not JSON: something follows"),
    "lost.json": (b'[{"x": 1,}, {"a": 2}, {"a": 3}]', "lost.json: not JSON: .* byte 1; what follows cannot be read"),
    "end.json": (b'[{"a": 1}, {"a": 2}, {"a": }, {"b": 3}]', "end.json: not JSON: .* byte 21; what follows"),
    "number.json": (b"3", "number.json: expected a list of objects"),
    "twice.csv": (b"a,a\n1,2\n", "the header has 'a' more than once"),
    "wide.jsonl": ('{"text": "one"}'.encode("utf-16"), "wide.jsonl: is UTF-16"),
    "fake.parquet": (b"PAR1", "fake.parquet: not Parquet"),
    "fake.arrow": (b"ARROW1 and no more", "fake.arrow: not Arrow"),
    "fake.jsonl.gz": (b"no gzip", "fake.jsonl.gz: damaged"),
    "fake.jsonl.xz": (b"no xz at all", "fake.jsonl.xz: damaged"),
    "fake.zip": (b"no zip", "fake.zip: not a zip archive"),
    "fake.warc": (b"no warc", "fake.warc: not WARC"),
    "fake.sqlite": (b"no database" * 100, "fake.sqlite: no query says"),
}


def test_a_cut_archive_says_to_fetch_it_again(tmp_path: Path) -> None:
    import pyarrow as pa

    packed = pa.Codec("zstd").compress(b'{"text": "one"}\n' * 999, asbytes=True)
    (tmp_path / "cut.jsonl.zst").write_bytes(packed[:-9])
    with pytest.raises(RuntimeFailure) as caught:
        rows(tmp_path, "cut.jsonl.zst")
    assert caught.value.fix == "fetch or compress it again"


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_say_where(tmp_path: Path, name: str) -> None:
    content, message = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RuntimeFailure, match=message) as caught:
        rows(tmp_path, name)
    assert caught.value.exit_code == 13 and caught.value.fix


@pytest.mark.parametrize(("path", "fix"), [("gone.jsonl", "check dataset.path"), ("a.docx", "known endings")])
def test_what_cannot_be_read_says_what_can(tmp_path: Path, path: str, fix: str) -> None:
    (tmp_path / "a.docx").touch()
    with pytest.raises(RuntimeFailure) as caught:
        rows(tmp_path, path)
    assert fix in str(caught.value.fix)


GOOD: dict[str, tuple[dict[str, Any], list[tuple[str, str]] | str]] = {
    "alpaca": ({"instruction": "i", "input": "x", "output": "o"}, [("user", "i\n\nx"), ("assistant", "o")]),
    "sharegpt": (
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "system": "s"},
        [("system", "s"), ("user", "q"), ("assistant", "a")],
    ),
    "chat": (
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
        [("user", "q"), ("assistant", "a")],
    ),
    "question_answer": ({"prompt": "q", "completion": "a"}, [("user", "q"), ("assistant", "a")]),
    "completion": ({"text": "all of it"}, "all of it"),
}


@pytest.mark.parametrize("name", GOOD)
def test_schemas_are_recognized_and_convert(name: str) -> None:
    row, expected = GOOD[name]
    schema = schema_for(frozenset(row), "here:1")
    assert schema.name == name
    made = schema.convert(row)
    if isinstance(made, Document):
        assert made.text == expected
    else:
        assert [(m["role"], m["content"]) for m in made.messages] == expected


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("alpaca", {"instruction": "i", "output": ""}, "output"),
    ("alpaca", {"instruction": 3, "output": "o"}, "instruction"),
    ("sharegpt", {"conversations": []}, "conversations"),
    ("sharegpt", {"conversations": [{"from": "alien", "value": "x"}]}, "conversations[0]"),
    ("sharegpt", {"conversations": [{"from": "human", "value": "x"}]}, "conversations"),
    ("sharegpt", {"conversations": [{"from": "gpt", "value": "x"}]}, "conversations"),
    ("chat", {"messages": [{"role": "user", "content": ["parts"]}]}, "messages[0]"),
    ("chat", {"messages": "hello"}, "messages"),
    ("question_answer", {"question": "q", "answer": None}, "answer"),
    ("completion", {"text": ""}, "text"),
]


@pytest.mark.parametrize(("name", "row", "column"), BAD)
def test_bad_rows_name_the_column(name: str, row: dict[str, Any], column: str) -> None:
    schema = named(name)
    assert isinstance(schema, Schema)
    with pytest.raises(BadRow) as caught:
        schema.convert(row)
    assert caught.value.column == column


def test_columns_that_fit_several_formats_are_not_guessed() -> None:
    with pytest.raises(RuntimeFailure, match="fit several formats") as caught:
        schema_for(frozenset({"messages", "text"}), "here:1")
    assert "chat or completion" in str(caught.value.fix)


def test_columns_that_fit_none_list_what_is_known() -> None:
    with pytest.raises(RuntimeFailure, match="no known format has the columns x, y"):
        schema_for(frozenset({"y", "x"}), "here:1")


@pytest.mark.parametrize(
    ("columns", "fix"),
    [
        ({"mesages"}, "rename mesages to messages, or"),
        ({"instruction", "input", "outptu"}, "rename outptu to output, or"),
        ({"x", "mesages", "instruction"}, "rename mesages to messages, or"),
        ({"x", "y"}, "rename columns, or"),
    ],
)
def test_one_misspelt_column_is_named(columns: set[str], fix: str) -> None:
    with pytest.raises(RuntimeFailure) as caught:
        schema_for(frozenset(columns), "here:1")
    assert str(caught.value.fix).startswith(fix)


def test_an_unknown_type_gets_a_suggestion() -> None:
    with pytest.raises(RuntimeFailure) as caught:
        named("alpacca")
    assert caught.value.fix == "did you mean alpaca?"


class Weather(Reader):
    name = "weather"
    scheme = "weather"

    def read(self, source: Source) -> Iterator[Record]:
        yield Record(place="sky", row={"text": source.written})

    def fingerprint(self, source: Source) -> str:
        return source.written


class OtherAlpaca(Schema):
    name = "alpaca"
    columns = ("instruction", "output")

    def convert(self, row: Any) -> Conversation:
        raise BadRow("not today", "output")


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    class Point:
        def __init__(self, name: str, made: Any) -> None:
            self.name, self.value, self.load = name, f"plugin:{name}", lambda: made

    points = [Point("weather", Weather), Point("alpaca", OtherAlpaca)]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    formats.cache_clear()
    yield
    formats.cache_clear()


def test_a_plugin_reads_its_scheme_and_overrides_a_builtin(plugins: None, tmp_path: Path) -> None:
    assert [r.row for r in rows(tmp_path, "weather:today")] == [{"text": "weather:today"}]
    assert fingerprints(Here(tmp_path), replace(DATASET, path="weather:today")) == ["weather:weather:today"]  # type: ignore[arg-type]
    assert isinstance(named("alpaca"), OtherAlpaca)


def test_a_reader_named_as_type_reads_any_suffix(tmp_path: Path) -> None:
    (tmp_path / "data.log").write_text('{"text": "one"}')
    ((reader, _),) = parts(Here(tmp_path), replace(DATASET, path="data.log", type="jsonl"))  # type: ignore[arg-type]
    assert reader.name == "jsonl"


def test_a_plugin_that_is_neither_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name, value = "odd", "odd:Odd"

        @staticmethod
        def load() -> Any:
            return dict

    monkeypatch.setattr(registry, "entry_points", lambda group: [Point()])
    formats.cache_clear()
    with pytest.raises(RuntimeFailure, match="odd:Odd"):
        formats()
    formats.cache_clear()


def test_the_example_plugins_are_found_by_their_entry_points() -> None:
    """As installed by `make install`: a user's own would be found the same way."""
    called = {"type": "function", "function": {"name": "look_up", "arguments": {}}}
    row = {"user_query": "q", "assistant_response": "a", "tool_calls": [called]}
    schema = schema_for(frozenset(row), "here:1")
    made = schema.convert(row)
    assert schema.name == "tickets" and isinstance(made, Conversation)
    assert made.messages[1]["tool_calls"] == [called]
    docstrings = formats()["docstrings"]
    assert isinstance(docstrings, Reader)
    first = next(docstrings.read(Source(written="pydoc:stdlib", path=Path())))
    assert set(first.row) == {"question", "answer"} and Path(first.place.rpartition(":")[0]).is_file()
