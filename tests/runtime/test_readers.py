"""The same real rows by every way in: formats, compressions, archives, stores, databases, web pages."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from axoc_runtime.errors import RuntimeFailure
from axoc_runtime.ingest.readers import json_list
from axoc_runtime.ingest.sources import fingerprints, parts
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


@pytest.fixture
def database(tmp_path: Path) -> Path:
    with closing(sqlite3.connect(tmp_path / "tickets.db")) as connection:
        connection.execute("create table tickets (id integer, question text, answer text)")
        connection.executemany("insert into tickets values (?, ?, ?)", [(i, *r.values()) for i, r in enumerate(ROWS)])
        connection.commit()
    return tmp_path


def test_rows_of_a_query(database: Path) -> None:
    query = "select question, answer from tickets order by id;"
    found = rows(database, "tickets.db", options={"query": query})
    assert [dict(r.row) for r in found] == ROWS
    assert [r.row["question"] for r in rows(database, "tickets.db", options={"table": "tickets"})] == [
        r["question"] for r in ROWS
    ]


@pytest.mark.parametrize(
    "options", [{"query": "delete from tickets"}, {"query": "select nothing"}, {"table": "a; drop table tickets"}, {}]
)
def test_a_database_is_only_read(database: Path, options: dict[str, str]) -> None:
    with pytest.raises(RuntimeFailure) as caught:
        rows(database, "tickets.db", options=options)
    assert caught.value.fix
    assert len(rows(database, "tickets.db", options={"table": "tickets"})) == len(ROWS)


def test_a_database_may_be_packed(database: Path) -> None:
    content = (database / "tickets.db").read_bytes()
    (database / "packed.db.gz").write_bytes(gzip.compress(content))
    (database / "packed.zip").write_bytes(archive({"tickets.db": content}))
    for name in ("packed.db.gz", "packed.zip"):
        assert len(rows(database, name, options={"table": "tickets"})) == len(ROWS)


def test_rows_of_a_database_are_prepared_again_when_they_change(database: Path) -> None:
    from dataclasses import replace

    dataset = replace(DATASET, path="tickets.db", options={"table": "tickets"})
    before = fingerprints(Here(database), dataset)  # type: ignore[arg-type]
    os.utime(database / "tickets.db", (1, 1))
    assert fingerprints(Here(database), dataset) == before  # type: ignore[arg-type]
    with closing(sqlite3.connect(database / "tickets.db")) as connection:
        connection.execute("update tickets set answer = 'no' where id = 3")
        connection.commit()
    assert fingerprints(Here(database), dataset) != before  # type: ignore[arg-type]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    (tmp_path / "www").mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "www"))) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()


def test_rows_behind_an_address(tmp_path: Path, server: str) -> None:
    for name in ("a.jsonl.gz", "a.parquet", "a.zip"):
        (tmp_path / "www" / name).write_bytes(WAYS[name])
        assert [dict(r.row) for r in rows(tmp_path, f"{server}/{name}")] == ROWS
    assert len(rows(tmp_path, f"{server}/a.jsonl.gz?download=true#top")) == len(ROWS)
    with pytest.raises(RuntimeFailure, match=r"gone\.jsonl"):
        rows(tmp_path, f"{server}/gone.jsonl")


def test_other_schemes_are_no_way_in(tmp_path: Path) -> None:
    for path in ("file:///etc/passwd", "ftp://host/a.jsonl", "simplecache::s3://b/a.jsonl"):
        with pytest.raises(RuntimeFailure, match="no data found"):
            rows(tmp_path, path)


def test_a_store_whose_client_is_missing_says_which(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailure, match="pip install gcsfs"):
        rows(tmp_path, "gs://bucket/a.jsonl")


@pytest.mark.slow
def test_rows_on_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """moto's S3, behind a real socket."""
    from moto.server import ThreadedMotoServer

    store = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    store.start()
    host, port = store.get_host_and_port()
    for name, value in {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1",
                        "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    try:
        import s3fs

        files = s3fs.S3FileSystem()
        files.mkdir("bucket")
        for name in ("a.jsonl.zst", "a.parquet", "a.zip"):
            files.pipe(f"bucket/data/{name}", WAYS[name])
            assert [dict(r.row) for r in rows(tmp_path, f"s3://bucket/data/{name}")] == ROWS
        files.pipe("bucket/data/notes.pdf", b"")
        assert [dict(r.row) for r in rows(tmp_path, "s3://bucket/data")] == ROWS * 3
        assert [dict(r.row) for r in rows(tmp_path, "s3://bucket/data/*.parquet")] == ROWS
        before = DATASET.__class__(**{**vars(DATASET), "path": "s3://bucket/data/a.parquet"})
        first = fingerprints(Here(tmp_path), before)  # type: ignore[arg-type]
        files.pipe("bucket/data/a.parquet", WAYS["a.parquet"] + b" ")
        files.invalidate_cache()
        assert fingerprints(Here(tmp_path), before) != first  # type: ignore[arg-type]
    finally:
        store.stop()


@pytest.mark.slow
def test_a_saved_dataset_and_its_splits(tmp_path: Path) -> None:
    import datasets

    whole = datasets.Dataset.from_list(ROWS)
    whole.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": whole.select([0]), "test": whole}).save_to_disk(tmp_path / "two")
    assert [dict(r.row) for r in rows(tmp_path, "one")] == ROWS
    assert len(rows(tmp_path, "two")) == 1
    assert len(rows(tmp_path, "two", options={"split": "test"})) == len(ROWS)
    with pytest.raises(RuntimeFailure, match="no split gone, but train, test"):
        rows(tmp_path, "two", options={"split": "gone"})


@pytest.mark.slow
@pytest.mark.parametrize("streaming", [False, True])
def test_rows_of_the_hub_are_as_they_are_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streaming: bool
) -> None:
    """The library itself, with a folder in the place of the hub. What is larger than the disk is not copied to it."""
    import datasets

    asked: list[Any] = []
    load, features = datasets.load_dataset, datasets.Features({"image": datasets.Image(), "n": datasets.Value("int64")})
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    pictures = [{"image": {"bytes": format_rows.picture(), "path": None}, "n": n} for n in range(3)]
    (tmp_path / "hub").mkdir()
    datasets.Dataset.from_list(pictures, features=features).to_parquet(tmp_path / "hub/train.parquet")

    def loaded(*args: Any, **more: Any) -> Any:
        asked.append((args, more["split"], more["revision"]))
        return load(str(tmp_path / "hub"), **{**more, "revision": None, "cache_dir": str(tmp_path / "cache")})

    monkeypatch.setattr(datasets, "load_dataset", loaded)
    options = {"config": "small", "revision": "abc"}
    assert [r.row for r in rows(tmp_path, "owner/name", options=options, streaming=streaming)] == pictures
    assert asked == [(("owner/name", "small"), "train", "abc")]
    assert streaming != any((tmp_path / "cache").rglob("*.arrow"))
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: 1 / 0)
    with pytest.raises(RuntimeFailure, match="neither a file here nor a dataset"):
        rows(tmp_path, "owner/name")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("initdb") is None or (os.geteuid() == 0 and shutil.which("runuser") is None),
                    reason="no PostgreSQL server is installed")  # fmt: skip
def test_rows_of_a_postgres_server(tmp_path: Path) -> None:
    psycopg = pytest.importorskip("psycopg", reason="psycopg is optional: pip install 'psycopg[binary]'")
    data, port = tmp_path / "server", 54000 + os.getpid() % 1000
    user = ["runuser", "-u", "nobody", "--"] if os.geteuid() == 0 else []
    tmp_path.chmod(0o777)
    for parent in takewhile(lambda folder: folder != Path(tempfile.gettempdir()), tmp_path.parents[:4]):
        parent.chmod(parent.stat().st_mode | 0o011)
    run = partial(subprocess.run, check=True, capture_output=True, cwd="/")
    run([*user, "initdb", "-D", str(data), "-U", "reader", "--auth=trust"])
    options = f"-p {port} -k {tmp_path} -h 127.0.0.1"
    run([*user, "pg_ctl", "-D", str(data), "-o", options, "-l", str(tmp_path / "log"), "-w", "start"])
    address = f"postgresql://reader@127.0.0.1:{port}/postgres"
    try:
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute("create table tickets (id int, question text, answer text)")
            for index, row in enumerate(ROWS):
                connection.execute("insert into tickets values (%s, %s, %s)", (index, *row.values()))
        query = {"query": "select question, answer from tickets order by id"}
        assert [dict(r.row) for r in rows(tmp_path, address, options=query)] == ROWS
        for bad in ("delete from tickets", "select nothing"):
            with pytest.raises(RuntimeFailure):
                rows(tmp_path, address, options={"query": bad})
        assert len(rows(tmp_path, address, options={"table": "tickets"})) == len(ROWS)
    finally:
        run([*user, "pg_ctl", "-D", str(data), "-m", "immediate", "stop"])


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
