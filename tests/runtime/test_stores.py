"""The same real rows out of databases, from behind addresses, on stores and from the hub."""

from __future__ import annotations

import gzip
import os
import shutil
import sqlite3
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from axoc_runtime.errors import RuntimeFailure
from axoc_runtime.ingest.sources import fingerprints

from runtime import format_rows
from runtime.test_formats import DATASET, Here, rows
from runtime.test_readers import ROWS, WAYS, archive


def test_what_a_store_cannot_give_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients have errors of their own, which are no OSError; a web server's says only the address, and why beneath it."""
    import fsspec

    class Refused(Exception):
        pass

    def refused(url: str, **_: Any) -> Any:
        raise Refused("Unable to locate credentials")

    monkeypatch.setattr(fsspec.core, "url_to_fs", refused)
    with pytest.raises(RuntimeFailure, match="Refused: Unable to locate credentials"):
        rows(tmp_path, "s3://bucket/a.jsonl")
    monkeypatch.undo()
    with pytest.raises(RuntimeFailure, match=r"a\.jsonl: ClientConnector\w*Error: Cannot connect to host"):
        rows(tmp_path, "http://127.0.0.1:9/a.jsonl")


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
    home = Path(tempfile.mkdtemp())  # pytest closes its own folders to others whenever a process of it begins
    data, port = home / "server", 54000 + os.getpid() % 1000
    user = ["runuser", "-u", "nobody", "--"] if os.geteuid() == 0 else []
    home.chmod(0o777)
    run = partial(subprocess.run, check=True, capture_output=True, cwd="/")
    run([*user, "initdb", "-D", str(data), "-U", "reader", "--auth=trust"])
    options = f"-p {port} -k {home} -h 127.0.0.1"
    run([*user, "pg_ctl", "-D", str(data), "-o", options, "-l", str(home / "log"), "-w", "start"])
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
        shutil.rmtree(home, ignore_errors=True)
