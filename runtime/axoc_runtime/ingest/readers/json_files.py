"""JSON: a list of objects, or one object with the list under one of its keys; JSON Lines: an object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any, BinaryIO, Final

from axoc_runtime.ingest.base import BadRow, Reader, Record, Source
from axoc_runtime.ingest.readers.json_list import Damaged, elements
from axoc_runtime.ingest.readers.lines import BOM, LONGEST_LINE_BYTES, SAMPLE, decoded, lines, shown

LISTS: Final = ("data", "rows", "examples", "train")
"""Keys under which an object may hold the list of rows."""


class JsonLines(Reader):
    name = "jsonl"
    suffixes = (".jsonl", ".ndjson")

    def read(self, source: Source) -> Iterator[Record]:
        if self._is_one_value(source):
            yield from Json().read(source)
            return
        with source.open() as stream:
            for number, offset, raw in lines(stream, source.written):
                if raw.strip():
                    yield self._record(source.written, number, offset, raw)

    @staticmethod
    def _is_one_value(source: Source) -> bool:
        """JSON under another name: a list of objects in one line, or a bracket alone, and after it no object that is whole."""
        with source.open() as stream:
            stripped = (raw.strip() for _, _, raw in lines(stream, source.written))
            first, second = (*islice(filter(None, stripped), 2), b"", b"")[:2]
        if not second:
            return first.endswith(b"]") and first.startswith(b"[") and first[1:].lstrip().startswith(b"{")
        return first in (b"[", b"{") and not (second.startswith(b"{") and second.endswith(b"}"))

    @staticmethod
    def _record(written: str, number: int, offset: int, raw: bytes) -> Record:
        place = {"place": f"{written}:{number}", "file": written, "number": number, "offset": offset}
        try:
            return Record(row=an_object(parsed(decoded(raw))), **place)  # type: ignore[arg-type]
        except BadRow as error:
            return Record(row={}, problem=error, raw=shown(raw), **place)  # type: ignore[arg-type]


class Json(Reader):
    name = "json"
    suffixes = (".json",)

    def read(self, source: Source) -> Iterator[Record]:
        if self._holds_lines(source):
            yield from JsonLines().read(source)
            return
        with source.open() as stream:
            if self._begins_with(stream) == b"[":
                yield from self._list(source)
                return
        yield from self._object(source)

    def _list(self, source: Source) -> Iterator[Record]:
        with source.open() as stream:
            for index, (offset, value) in enumerate(elements(stream, source.written)):
                yield self._record(source.written, index, offset, value)

    def _object(self, source: Source) -> Iterator[Record]:
        """One object: the list it holds, or a row of its own. It is read whole."""
        with source.open() as stream:
            raw = stream.read(LONGEST_LINE_BYTES + 1)
        if len(raw) > LONGEST_LINE_BYTES:
            message = f"{source.written}: one JSON object of over {LONGEST_LINE_BYTES >> 20} MiB"
            raise BadRow(message, check="malformed", fix="make it JSON Lines: an object a line")
        try:
            rows = rows_of(parsed(decoded(raw.removeprefix(BOM))))
        except BadRow as error:
            raise BadRow(f"{source.written}: {error}", check=error.check, fix=error.fix) from None
        for index, value in enumerate(rows):
            yield self._record(source.written, index, None, value)

    @staticmethod
    def _holds_lines(source: Source) -> bool:
        """JSON Lines under another name: its first line is an object, and there is a second."""
        with source.open() as stream:
            first = next((raw for _, _, raw in lines(stream, source.written) if raw.strip()), b"").strip()
            more = bool(stream.read(4096).strip())
        return more and first.startswith(b"{") and first.endswith(b"}")

    @staticmethod
    def _begins_with(stream: BinaryIO) -> bytes:
        return stream.read(4096).removeprefix(BOM).lstrip()[:1]

    @staticmethod
    def _record(written: str, index: int, offset: int | None, value: Any) -> Record:
        place = f"{written}[{index}]"
        try:
            row, problem, raw = an_object(value), None, ""
        except BadRow as error:
            row, problem, raw = {}, error, getattr(error, "raw", "") or json.dumps(value, ensure_ascii=False)[:SAMPLE]
        return Record(place=place, row=row, file=written, number=index + 1, offset=offset, problem=problem, raw=raw)


def parsed(content: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BadRow(f"not JSON: {error}", check="malformed", fix="repair or remove the row") from None


def rows_of(value: Any) -> list[Any]:
    """The list inside an object, where there is one of a known name; an object without one is a row of its own."""
    if not isinstance(value, dict):
        message = f"expected a list of objects, found {type(value).__name__}"
        raise BadRow(message, check="malformed", fix="make it a list of objects, or JSON Lines")
    lists = [v for k, v in value.items() if k in LISTS and isinstance(v, list)]
    return lists[0] if len(lists) == 1 else [value]


def an_object(value: Any) -> dict[str, Any]:
    if isinstance(value, Damaged):
        raise value
    if not isinstance(value, dict):
        message = f"expected an object, found {type(value).__name__}"
        raise BadRow(message, check="malformed", fix="make each row an object: column name to value")
    return value
