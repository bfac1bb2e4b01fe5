"""In which line of a JSON text each value stands, so that a message can point at it. ``json`` itself does not tell."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

JsonPath = tuple[str | int, ...]
TOKEN: Final = re.compile(r'"(?:[^"\\\n]|\\.)*"|[{}\[\]:,]|\n|[^\s{}\[\]:,"]+')


def lines_of(text: str) -> dict[JsonPath, int]:
    """1-based lines by path, of a text that ``json.loads`` takes; of a key's value the line where the value begins."""
    found: dict[JsonPath, int] = {(): 1}
    line, stack = 1, list[list[Any]]()
    for token in TOKEN.findall(text):
        if token == "\n":
            line += 1
        elif token in "}]":
            stack.pop()
        elif token == ",":
            stack[-1][1] = stack[-1][1] + 1 if stack[-1][0] == "[" else None
        elif token == ":":
            continue
        elif stack and stack[-1][0] == "{" and stack[-1][1] is None:
            stack[-1][1] = json.loads(token)
        else:
            found[tuple(level[1] for level in stack)] = line
            if token in "{[":
                stack.append([token, None if token == "{" else 0])
    return found


def nearest_line(places: dict[JsonPath, int], path: JsonPath) -> int:
    """Of the value, or of the innermost one around where it should be."""
    while path not in places:
        path = path[:-1]
    return places[path]


def leaf_differences(found: Any, expected: Any, path: JsonPath = ()) -> Iterator[tuple[JsonPath, Any, Any]]:
    """Path, value found, value expected; ``MISSING`` stands for what one side lacks."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for name in dict.fromkeys([*expected, *found]):
            yield from leaf_differences(found.get(name, MISSING), expected.get(name, MISSING), (*path, name))
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        for index, (one, other) in enumerate(zip(found, expected, strict=True)):
            yield from leaf_differences(one, other, (*path, index))
    elif not same(found, expected):
        yield path, found, expected


def same(one: Any, other: Any) -> bool:
    """Equal, and of one kind: to a library ``true`` is not 1."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


class _Missing:
    def __repr__(self) -> str:
        return "not there"


MISSING: Final = _Missing()


def dotted(path: JsonPath) -> str:
    """``candidates[0].plan.strategy``"""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def shown(value: Any, limit: int = 60) -> str:
    """A value for a message: JSON, cut where it is long."""
    text = repr(value) if value is MISSING else json.dumps(value, ensure_ascii=True)
    return text if len(text) <= limit else text[: limit - 1] + "…"
