"""CSV and TSV with a header: quoted fields may hold line ends."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from typing import Any, Final

from axoc_runtime.ingest.base import BadRow, Reader, Record, Source
from axoc_runtime.ingest.readers.lines import lines

LONGEST_FIELD: Final = 64 << 20
csv.field_size_limit(LONGEST_FIELD)
OTHERS: Final = (";", "\t", "|", ",")
"""What else parts fields, as spreadsheets write them in other countries."""


class _Lines:
    """Lines as csv takes them, remembering where the record that is being read begins."""

    def __init__(self, found: Iterator[tuple[int, int, bytes]]) -> None:
        self.found = found
        self.taken: list[tuple[int, int, bytes]] = []

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        self.taken.append(next(self.found))
        return self.taken[-1][2].decode("utf-8", "surrogateescape")


class Csv(Reader):
    """Options: ``delimiter``, where it is another one."""

    name = "csv"
    suffixes = (".csv",)
    delimiter = ","

    def read(self, source: Source) -> Iterator[Record]:
        with source.open() as stream:
            taken = _Lines(lines(stream, source.written))
            rows = csv.reader(taken, delimiter=self._delimiter(source), strict=True)
            try:
                header = next(rows, [])
            except csv.Error as error:
                raise BadRow(f"{source.written}:1: not {self.name.upper()}: {error}", check="malformed") from None
            self._check(header, source.written)
            while True:
                taken.taken.clear()
                try:
                    fields, problem = next(rows), None
                except StopIteration:
                    return
                except csv.Error as error:
                    fields, problem = [], self._why(error)
                if fields or problem:
                    yield self._record(source.written, header, fields, problem, taken.taken)

    def _delimiter(self, source: Source) -> str:
        found = source.options.get("delimiter", self.delimiter)
        if not isinstance(found, str) or len(found) != 1 or found in '"\r\n':
            fix = "set dataset.options: {delimiter: ';'}"
            raise BadRow(f"{source.written}: options.delimiter is no single character", check="malformed", fix=fix)
        return found

    def _record(
        self, written: str, header: list[str], fields: list[str], problem: BadRow | None, taken: list[Any]
    ) -> Record:
        number, offset, _ = taken[0]
        problem = problem or _fields_problem(header, fields)
        raw = b"".join(line for _, _, line in taken)[:4096].decode("utf-8", "backslashreplace") if problem else ""
        row = {} if problem else dict(zip(header, fields, strict=True))
        place = f"{written}:{number}"
        return Record(place=place, row=row, file=written, number=number, offset=offset, problem=problem, raw=raw)

    def _why(self, error: csv.Error) -> BadRow:
        fix = "repair the quotes: a quote inside a quoted field is written twice"
        return BadRow(f"not {self.name.upper()}: {error}", check="malformed", fix=fix)

    def _check(self, header: list[str], written: str) -> None:
        twice = sorted({name for name in header if header.count(name) > 1})
        if twice:
            message = f"{written}:1: the header has {', '.join(map(repr, twice))} more than once"
            raise BadRow(message, check="malformed", fix="rename one of them")
        other = next((mark for mark in OTHERS if len(header) == 1 and mark in header[0]), None)
        if other is not None:
            message = f"{written}:1: the header is one column, {header[0][:80]!r}"
            fix = f"set dataset.options: {{delimiter: {json.dumps(other)}}}"
            raise BadRow(message, check="malformed", fix=fix)


class Tsv(Csv):
    name = "tsv"
    suffixes = (".tsv",)
    delimiter = "\t"


def _fields_problem(header: list[str], fields: list[str]) -> BadRow | None:
    if len(fields) != len(header):
        more = "more" if len(fields) > len(header) else "fewer"
        message = f"{more} fields than the header has: {len(fields)} and {len(header)}"
        return BadRow(message, check="malformed", fix="put quotes around fields that hold the delimiter")
    for name, value in zip(header, fields, strict=True):
        escaped = next((c for c in value if "\udc80" <= c <= "\udcff"), None)
        if escaped:
            message = f"not UTF-8: the byte 0x{ord(escaped) - 0xDC00:02x}"
            return BadRow(message, name, check="encoding", fix="convert the file: iconv -f LATIN1 -t UTF-8")
    return None
