"""The same real rows out of every kind of file: formats, compressions, archives, web pages. Stores: test_stores.py."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import subprocess
import sys
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from axoc_runtime.errors import RuntimeFailure
from axoc_runtime.ingest.readers import json_list
from axoc_runtime.ingest.sources import parts
from hypothesis import given
from hypothesis import strategies as st

from runtime import format_rows
from runtime.test_formats import DATASET, Here, rows

ROWS = [{"question": q, "answer": a} for q, a, _ in format_rows.GIVEN]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
TABLE = pa.Table.from_pylist(ROWS)


def written(write: Callable[[Any], None]) -> bytes:
    sink = io.BytesIO()
    write(sink)
    return sink.getvalue()


def zstd(content: bytes) -> bytes:
    """Two frames, as pzstd and appending write them."""
    half = len(content) // 2
    codec = pa.Codec("zstd")
    return b"".join(codec.compress(part, asbytes=True) for part in (content[:half], content[half:]))


def delimited(delimiter: str) -> bytes:
    quoted = [[f'"{v.replace(chr(34), chr(34) * 2)}"' for v in row.values()] for row in ROWS]
    return "\r\n".join([f"question{delimiter}answer", *(delimiter.join(r) for r in quoted)]).encode("utf-8-sig")


def archive(files: dict[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in files.items():
            made.writestr(name, content)
    return sink.getvalue()


def ipc(new: Any, sink: Any) -> None:
    with new(sink, TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=7)


PARQUET = written(lambda sink: pyarrow.parquet.write_table(TABLE, sink, row_group_size=7))
WAYS: dict[str, bytes] = {
    "a.jsonl": LINES,
    "a.json": json.dumps(ROWS, indent=1).encode(),
    "a.csv": delimited(","),
    "a.tsv": delimited("\t"),
    "a.parquet": PARQUET,
    "a.feather": written(partial(pyarrow.feather.write_feather, TABLE)),
    "a.arrow": written(partial(ipc, pa.ipc.new_file)),
    "stream.arrow": written(partial(ipc, pa.ipc.new_stream)),
    "a.jsonl.gz": gzip.compress(LINES[:500]) + gzip.compress(LINES[500:]),
    "a.jsonl.bz2": bz2.compress(LINES),
    "a.jsonl.xz": lzma.compress(LINES),
    "a.jsonl.zst": zstd(LINES),
    "a.json.zst": zstd(json.dumps(ROWS).encode()),
    "a.csv.gz": gzip.compress(delimited(",")),
    "a.parquet.gz": gzip.compress(PARQUET),
    "a.zip": archive({"deep/a.jsonl": LINES, "README": b"no data"}),
    "p.zip": archive({"a.parquet": PARQUET}),
}


@pytest.mark.parametrize("name", WAYS)
def test_every_file_gives_the_same_rows_with_their_numbers(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(WAYS[name])
    found = rows(tmp_path, name)
    assert [dict(r.row) for r in found] == ROWS
    numbers = [r.number for r in found]
    assert numbers == list(range(numbers[0] or 0, (numbers[0] or 0) + len(ROWS)))
    assert all(r.file and r.problem is None for r in found)


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.json", "a.jsonl.zst"])
def test_bytes_lead_to_the_row(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(WAYS[name])
    content = LINES if name.endswith(".zst") else WAYS[name]
    for record in rows(tmp_path, name):
        assert record.offset is not None
        assert json.dumps(record.row["question"]).encode() in content[record.offset : record.offset + 120]


def test_a_folder_of_compressed_files_and_archives(tmp_path: Path) -> None:
    for name in ("a.jsonl.gz", "a.zip"):
        (tmp_path / "d").mkdir(exist_ok=True)
        (tmp_path / "d" / name).write_bytes(WAYS[name])
    (tmp_path / "d" / "notes.pdf").touch()
    assert [dict(r.row) for r in rows(tmp_path, "d")] == ROWS + ROWS


def test_what_stands_beside_data_is_no_data(tmp_path: Path) -> None:
    """A repository of the hub as it is cloned, and an archive as macOS makes it."""
    for name in ("snap/README.md", "snap/.cache/a.jsonl", "snap/data/_delta_log/1.json", "snap/dataset_infos.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"{}")
    (tmp_path / "snap/data/train.parquet").write_bytes(PARQUET)
    (tmp_path / "mac.zip").write_bytes(archive({"a.jsonl": LINES, "__MACOSX/._a.jsonl": b"\0"}))
    for path in ("snap", "mac.zip", "snap/**/*.parquet", "*/data/*.parquet"):
        assert [dict(r.row) for r in rows(tmp_path, path)] == ROWS, path
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/README.md").write_text("all there is")
    assert len(rows(tmp_path, "docs")) == 1


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for folder in ("d/a", "d/b"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "rows.jsonl").write_bytes(LINES)
    assert {r.file for r in rows(tmp_path, "d")} == {"a/rows.jsonl", "b/rows.jsonl"}


@given(
    values=st.lists(st.recursive(st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
                                 lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=6)),
    chunk=st.integers(1, 40), indent=st.sampled_from([None, 0, 2]),
)  # fmt: skip
def test_a_json_list_is_read_whole_at_any_size_of_pieces(values: list[Any], chunk: int, indent: int | None) -> None:
    content = json.dumps(values, indent=indent, ensure_ascii=False).encode("utf-8", "surrogatepass")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(json_list, "CHUNK_BYTES", chunk)
        found = list(json_list.elements(io.BytesIO(content), "x"))
    whole = [(offset, value) for offset, value in found if not isinstance(value, json_list.Damaged)]
    assert len(found) == len(values)
    assert [value for _, value in whole] == [v for v in values if encodes(v)]
    for offset, value in whole:
        assert json.JSONDecoder().raw_decode(content[offset:].decode("utf-8", "replace"))[0] == value


def encodes(value: Any) -> bool:
    """Whether there is no half of a character in it."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


WRONG = (0, 3, 4, 9, len(ROWS) - 1)
BROKEN = {
    "cut": lambda row: row[: len(row) // 2],
    "quote lost": lambda row: row.replace('"answer"', 'answer"'),
    "quote too many": lambda row: row[:-2] + '""}',
    "comma lost": lambda row: row.replace('", ', '" ').replace('",\n', '"\n'),
    "brace too many": lambda row: row + "}",
    "bracket too many": lambda row: row + "]",
    "not UTF-8": lambda row: row.replace("question", "quest\udce9ion", 1),
    "a line in a text": lambda row: row[:-3] + "\n" + row[-3:],
}


@pytest.mark.parametrize("chunk", [7, 100, 1 << 20])
@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_element_of_a_list_hides_no_other(how: str, indent: int | None, chunk: int) -> None:
    written = [json.dumps(row, indent=indent, ensure_ascii=False) for row in ROWS]
    broken = [BROKEN[how](row) if i in WRONG else row for i, row in enumerate(written)]
    content = f"[{', '.join(broken)}]".encode("utf-8", "surrogateescape")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(json_list, "CHUNK_BYTES", chunk)
        found = list(json_list.elements(io.BytesIO(content), "x"))
    assert [value for _, value in found if not isinstance(value, json_list.Damaged)] == [
        row for i, row in enumerate(ROWS) if i not in WRONG
    ]
    told = [offset for offset, value in found if isinstance(value, json_list.Damaged)]
    places = [
        len("".join(["[", *(f"{row}, " for row in broken[:i])]).encode("utf-8", "surrogateescape")) for i in WRONG
    ]
    assert told == places


@pytest.mark.parametrize("name", ["a.arrow", "stream.arrow"])
def test_offsets_beyond_the_end_of_an_arrow_file_are_no_crash(tmp_path: Path, name: str) -> None:
    lengths = [len(row["question"].encode()) for row in ROWS[:7]]
    offsets = np.cumsum([0, *lengths]).astype("<i4").tobytes()
    assert offsets in WAYS[name]
    (tmp_path / name).write_bytes(WAYS[name].replace(offsets, offsets[:-4] + (1 << 30).to_bytes(4, "little")))
    with pytest.raises(RuntimeFailure, match=f"{name}: not Arrow"):
        rows(tmp_path, name)


def test_web_pages_become_what_a_reader_sees(tmp_path: Path) -> None:
    page = "<html><head><style>b{}</style><script>x()</script></head><body><h1>Cats</h1><p>They <b>purr</b>.</p></body>"
    (tmp_path / "a.html").write_text(page)
    (row,) = rows(tmp_path, "a.html")
    assert row.row["text"].split() == ["Cats", "They", "purr."]
    (tmp_path / "a.md").write_text("---\ntitle: x\n---\n# Cats\n\n---\nThey purr.\n")
    (row,) = rows(tmp_path, "a.md")
    assert row.row["text"] == "# Cats\n\n---\nThey purr.\n"


def warc() -> bytes:
    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    sink = io.BytesIO()
    writer = WARCWriter(sink, gzip=True)

    def page(url: str, status: str, kind: str, content: bytes) -> None:
        headers = StatusAndHeaders(status, [("Content-Type", kind)], protocol="HTTP/1.1")
        writer.write_record(writer.create_warc_record(url, "response", io.BytesIO(content), http_headers=headers))

    page("http://a/1", "200 OK", "text/html; charset=latin-1", "<p>caf\u00e9</p>".encode("latin-1"))
    page("http://a/2", "404 Not Found", "text/html", b"<p>gone</p>")
    page("http://a/3", "200 OK", "image/png", b"\x89PNG")
    page("http://a/4", "200 OK", "text/plain", b"plain")
    page("http://a/5", "200 OK", "text/plain; charset=utf-8", b"\xff")
    return sink.getvalue()


def test_pages_of_a_crawl(tmp_path: Path) -> None:
    (tmp_path / "a.warc.gz").write_bytes(warc())
    found = rows(tmp_path, "a.warc.gz")
    assert [(r.row["url"], r.row["text"]) for r in found if not r.problem] == [
        ("http://a/1", "caf\u00e9"),
        ("http://a/4", "plain"),
    ]
    (bad,) = [r for r in found if r.problem]
    assert bad.raw == "http://a/5" and bad.problem is not None and bad.problem.check == "encoding"


def test_a_page_that_does_not_end_where_it_says_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a file that was cut off, or with a wrong length: half a page is no page, and warcio only writes to standard error."""
    whole = gzip.decompress(warc())
    for cut, url in ((b"plain\r\n\r\nWARC", "http://a/4"), (b"<p>gone", "http://a/2")):  # a page, and none of success
        (tmp_path / "cut.warc").write_bytes(whole[: whole.index(cut) + 3])
        (bad,) = [r for r in rows(tmp_path, "cut.warc") if r.problem]
        assert bad.raw == url and bad.problem is not None and "are missing" in str(bad.problem)
    (tmp_path / "long.warc").write_bytes(whole.replace(b"plain\r\n\r\nWARC", b"plain, and more\r\n\r\nWARC"))
    found = rows(tmp_path, "long.warc")
    assert [r.raw for r in found if r.problem] == ["http://a/4", "http://a/5"]
    assert "longer than its Content-Length" in str(found[1].problem)
    monkeypatch.setattr("axoc_runtime.ingest.readers.warc.LARGEST_PAGE_BYTES", 4)
    (tmp_path / "a.warc").write_bytes(whole)
    large = [r for r in rows(tmp_path, "a.warc") if r.problem]
    assert [(r.raw, r.problem and r.problem.check) for r in large[:2]] == [
        ("http://a/1", "too-long"),
        ("http://a/4", "too-long"),
    ]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "content", [json.dumps(ROWS), json.dumps(ROWS, indent=2), json.dumps({"data": ROWS}, indent=1)]
)
def test_a_whole_list_under_the_name_of_lines_is_read(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    assert [r.row for r in rows(tmp_path, "a.jsonl")] == ROWS
    (tmp_path / "b.jsonl").write_text(
        "[\n" + "".join(json.dumps(r) + "\n" for r in ROWS)
    )  # lines, the first one damaged
    assert [r.row for r in rows(tmp_path, "b.jsonl") if not r.problem] == ROWS


@pytest.mark.parametrize("mark", [";", "\t"])
def test_a_table_with_other_marks_says_which(tmp_path: Path, mark: str) -> None:
    (tmp_path / "a.csv").write_text(f"question{mark}answer\n1{mark}2, or 3\n")
    with pytest.raises(RuntimeFailure, match="the header is one column") as caught:
        rows(tmp_path, "a.csv")
    assert caught.value.fix == f"set dataset.options: {{delimiter: {json.dumps(mark)}}}"
    assert [r.row for r in rows(tmp_path, "a.csv", options={"delimiter": mark})] == [
        {"question": "1", "answer": "2, or 3"}
    ]


def test_memory_is_flat_however_large_the_file(tmp_path: Path) -> None:
    """Sixty megabytes of rows through readers that could hold them all, in less than thirty more than they take to load."""
    script = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from axoc_runtime.ingest.base import Source\n"
        "from axoc_runtime.ingest.registry import reader_for\n"
        "reader_for('', '.parquet')\n"
        "import pyarrow.parquet\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "path = Path(sys.argv[1])\n"
        "source = Source(written=path.name, path=path)\n"
        "count = sum(1 for _ in reader_for('', path.suffix).read(source))\n"
        "print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    row = {"question": "q" * 500, "answer": "a" * 500}
    many = 60_000
    with (tmp_path / "a.json").open("w") as file:
        file.write("[" + ",\n".join([json.dumps(row)] * many) + "]")
    with (tmp_path / "a.csv").open("w") as file:
        file.write("question,answer\n" + f"{row['question']},{row['answer']}\n" * many)
    for name in ("a.json", "a.csv"):
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / name)], capture_output=True, text=True, check=True
        )
        count, grown_kib = map(int, done.stdout.split())
        assert count == many and grown_kib < 30 * 1024, (name, grown_kib)


def test_parts_are_named_as_they_were_written(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(WAYS["a.zip"])
    ((reader, source),) = parts(Here(tmp_path), DATASET.__class__(**{**vars(DATASET), "path": "a.zip"}))  # type: ignore[arg-type]
    assert (reader.name, source.written) == ("jsonl", "a.zip/deep/a.jsonl")
