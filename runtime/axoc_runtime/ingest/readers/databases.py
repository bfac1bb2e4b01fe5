"""SQLite and PostgreSQL: the rows of one query. The connection can only read."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from axoc_runtime.ingest.base import BadRow, Reader, Record, Source
from axoc_runtime.ingest.opening import endings

BATCH_ROWS: Final = 512


class _Query(Reader):
    """Options: ``query``, e.g. ``select question, answer from tickets order by id``; or ``table``, for all of one."""

    def read(self, source: Source) -> Iterator[Record]:
        for index, row in enumerate(self.rows(source, query_of(source))):
            yield Record(place=f"{source.written}[{index}]", row=row, file=source.written, number=index + 1)

    def fingerprint(self, source: Source) -> str:
        """Of the rows themselves: a database's file changes when its rows do not, and a server has no file."""
        digest = hashlib.sha256()
        for row in self.rows(source, query_of(source)):
            digest.update(json.dumps(row, sort_keys=True, default=str).encode())
        return digest.hexdigest()

    def rows(self, source: Source, query: str) -> Iterator[dict[str, Any]]:
        raise NotImplementedError


class Sqlite(_Query):
    name = "sqlite"
    suffixes = (".db", ".sqlite", ".sqlite3")

    def rows(self, source: Source, query: str) -> Iterator[dict[str, Any]]:
        try:
            with (
                _plain_file(source) as path,
                closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection,
            ):
                connection.execute("pragma query_only = on")
                connection.row_factory = sqlite3.Row
                for row in connection.execute(query):
                    yield dict(row)
        except (sqlite3.Error, sqlite3.Warning, UnicodeDecodeError) as error:
            raise BadRow(f"{source.written}: {error}", check="malformed", fix="check options.query") from None


@contextmanager
def _plain_file(source: Source) -> Iterator[Path]:
    """Of a database that is packed, or lies on a store, a copy: SQLite opens files only."""
    if source.url is None and source.member is None and not endings(source.name)[1]:
        yield source.path
        return
    with source.open() as stream, tempfile.NamedTemporaryFile(prefix="axoc-") as copy:
        shutil.copyfileobj(stream, copy, 1 << 20)
        copy.flush()
        yield Path(copy.name)


class Postgres(_Query):
    """``postgresql://host/database``: user and password from PGUSER, PGPASSWORD or ~/.pgpass, as psql has them."""

    name = "postgres"
    scheme = "postgresql"

    def rows(self, source: Source, query: str) -> Iterator[dict[str, Any]]:
        try:
            import psycopg
            from psycopg.rows import dict_row
        except ImportError:
            fix = "pip install 'psycopg[binary]' and use --no-install, or export the rows to Parquet"
            raise BadRow(f"{source.written}: psycopg is not installed", check="environment", fix=fix) from None
        try:
            with psycopg.connect(source.written, row_factory=dict_row) as connection:
                connection.read_only = True
                with connection.cursor("axoc_rows") as cursor:  # a named cursor stays on the server
                    cursor.itersize = BATCH_ROWS
                    yield from cursor.execute(query.encode())
        except psycopg.Error as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            reached = error.sqlstate is not None  # what the server says; else it was not reached
            fix = (
                "check options.query" if reached else "check the address, PGUSER, PGPASSWORD, and that the server runs"
            )
            raise BadRow(f"{source.written}: {first}", check="malformed", fix=fix) from None


WORD: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_.")


def query_of(source: Source) -> str:
    """Raises BadRow where neither a query nor a table is named."""
    query, table = source.options.get("query"), source.options.get("table")
    if isinstance(query, str) and query.strip():
        return query.strip().rstrip(";")
    if isinstance(table, str) and table and set(table.lower()) <= WORD:
        return f"select * from {table}"
    fix = "set dataset.options: {query: select question, answer from tickets order by id}"
    raise BadRow(f"{source.written}: no query says which rows to read", check="malformed", fix=fix)
