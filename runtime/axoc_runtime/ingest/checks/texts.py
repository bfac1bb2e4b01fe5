"""All text of an example or a row, with the column it stands in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

DEEPEST: Final = 256
"""Twice a level of OpenAssistant's trees, a mapping in a list, whose text is read to the last one."""


def texts(value: Any, column: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """(column, text): ``messages[1].content`` is named as its column path."""
    if isinstance(value, str):
        yield column, value
    elif depth > DEEPEST:
        return
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(key, str) and not key.isascii():
                yield column or "(names of columns)", key
            yield from texts(inner, f"{column}.{key}" if column else str(key), depth + 1)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            if isinstance(inner, str | Mapping | list | tuple):
                yield from texts(inner, f"{column}[{index}]", depth + 1)


def together(value: Any) -> str:
    """All of these texts in one: a look at it costs a fraction of a look at each with its column."""
    found: list[str] = []
    _gather(value, found, 0)
    return "\n".join(found)


def _gather(value: Any, found: list[str], depth: int) -> None:
    if isinstance(value, str):
        found.append(value)
    elif depth > DEEPEST:
        return
    elif isinstance(value, dict | Mapping):  # dict first: to ask for a Mapping takes ten times as long
        for key, inner in value.items():
            if isinstance(key, str) and not key.isascii():
                found.append(key)
            _gather(inner, found, depth + 1)
    elif isinstance(value, list | tuple):
        for inner in value:
            _gather(inner, found, depth + 1)
