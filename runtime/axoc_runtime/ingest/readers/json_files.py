"""JSON: a list of objects, or one object with the list under one of its keys; JSON Lines: an object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from axoc_runtime.ingest.base import BadRow, Reader, Record, Source


class JsonLines(Reader):
    name = "jsonl"
    suffixes = (".jsonl", ".ndjson")

    def read(self, source: Source) -> Iterator[Record]:
        with source.path.open(encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    place = f"{source.written}:{number}"
                    yield Record(place=place, row=an_object(decoded(line, place), place))


class Json(Reader):
    name = "json"
    suffixes = (".json",)

    def read(self, source: Source) -> Iterator[Record]:
        content = source.path.read_text(encoding="utf-8-sig")
        first = content.lstrip().split("\n", 1)[0].strip()
        if first.startswith("{") and first.endswith("}") and content.strip() != first:
            yield from JsonLines().read(source)  # JSON Lines under another name
            return
        for index, value in enumerate(rows_of(decoded(content, source.written), source.written)):
            place = f"{source.written}[{index}]"
            yield Record(place=place, row=an_object(value, place))


def decoded(content: str, place: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BadRow(f"{place}: not JSON: {error}") from None


def rows_of(value: Any, place: str) -> list[Any]:
    """The list itself, or the only list of objects inside an object; an object without one is a row of its own."""
    if isinstance(value, list):
        return value
    if not isinstance(value, dict):
        raise BadRow(f"{place}: expected a list of objects, found {type(value).__name__}")
    lists = [v for k, v in value.items() if k in ("data", "rows", "examples", "train") and isinstance(v, list)]
    return lists[0] if len(lists) == 1 else [value]


def an_object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadRow(f"{place}: expected an object, found {type(value).__name__}")
    return value
