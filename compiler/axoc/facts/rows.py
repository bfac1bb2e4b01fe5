"""Rows of a local data file, counted as the runtime reads it, without its libraries."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final

from axoc.errors import Diagnostic, UserError

BOM: Final = b"\xef\xbb\xbf"


def count_rows(file: Path) -> int | None:
    """Rows of JSON, JSON Lines, CSV or TSV; None for other formats. A text is one document of any number of rows of tokens.
    Raises UserError where it is not that."""
    suffix = file.suffix.lower()
    try:
        if suffix == ".json":
            return _json(file)
        if suffix in (".jsonl", ".ndjson"):
            return _lines(file)
        if suffix in (".csv", ".tsv"):
            return _table(file, "\t" if suffix == ".tsv" else ",")
    except (ValueError, csv.Error, RecursionError) as error:
        message = f"not {suffix[1:].upper()}: {error}"
        raise UserError(Diagnostic(message=message, file=str(file), fix="repair the file or its name")) from None
    return None


def _json(file: Path) -> int | None:
    """A list's length. A file that is JSON Lines under another name is counted by line, as datasets does."""
    with file.open("rb") as stream:
        first = stream.readline().removeprefix(BOM).strip()
    try:
        value = json.loads(file.read_bytes())
    except ValueError:
        if _is_object(first):
            return _lines(file)
        raise
    return len(value) if isinstance(value, list) else None


def _lines(file: Path) -> int | None:
    """A whole list under the name of lines is read as one (axoc_runtime/ingest/readers/json_files.py)."""
    with file.open("rb") as stream:
        first, second = (*islice(_filled(stream), 2), b"", b"")[:2]
        objects = first.endswith(b"]") and first.startswith(b"[") and first[1:].lstrip().startswith(b"{")
        if objects if not second else first in (b"[", b"{") and not _is_object(second):
            return _json(file)
    with file.open("rb") as stream:
        return sum(1 for _ in _filled(stream))


def _filled(stream: BinaryIO) -> Iterator[bytes]:
    return filter(None, (line.removeprefix(BOM).strip() for line in stream))


def _is_object(line: bytes) -> bool:
    return line.startswith(b"{") and line.endswith(b"}")


def _table(file: Path, delimiter: str) -> int:
    """Records after the header; quoted line breaks are part of a record, and one that is no UTF-8 is a row to be listed."""
    csv.field_size_limit(1 << 30)
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        records = sum(1 for record in csv.reader(stream, delimiter=delimiter) if record)
    return max(0, records - 1)
