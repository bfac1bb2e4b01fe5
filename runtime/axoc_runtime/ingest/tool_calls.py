"""Calls of tools, their results, and the tools themselves: in every spelling in, in one spelling out.

Out comes what chat templates take: ``{"type": "function", "function": {"name", "arguments": {…}}, "id"?}``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from axoc_runtime.ingest.base import BadRow, Message


def as_json(value: Any, column: str) -> Any:
    """Text is JSON; everything else is there already. Raises BadRow."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise BadRow(f"is not JSON: {error}", column, check="tool-call") from None


def calls(value: Any, column: str) -> list[dict[str, Any]]:
    """One call or several. Raises BadRow."""
    found = as_json(value, column)
    several = found if isinstance(found, Sequence) and not isinstance(found, str) else [found]
    if not several:
        raise BadRow("is an empty list of calls", column, check="tool-call")
    return [_call(one, column) for one in several]


def _call(value: Any, column: str) -> dict[str, Any]:
    inner = value.get("function", value) if isinstance(value, Mapping) else None
    name = inner.get("name") if isinstance(inner, Mapping) else None
    if not isinstance(inner, Mapping) or not isinstance(name, str) or not name:
        raise BadRow("is no call: expected {name, arguments}", column, check="tool-call")
    arguments = as_json(inner.get("arguments", inner.get("parameters")) or {}, column)
    if not isinstance(arguments, Mapping):
        raise BadRow(f"calls {name} with arguments that are no object", column, check="tool-call")
    made: dict[str, Any] = {"type": "function", "function": {"name": name, "arguments": dict(arguments)}}
    identity = value.get("id")
    return made | ({"id": identity} if isinstance(identity, str) and identity else {})


def tools(value: Any, column: str) -> tuple[Mapping[str, Any], ...]:
    """The tools a row offers: JSON text or a list, in OpenAI's or Anthropic's spelling. Raises BadRow."""
    if value is None or value == "" or value == []:
        return ()
    found = as_json(value, column)
    if not isinstance(found, Sequence) or isinstance(found, str):
        raise BadRow("is no list of tools", column, check="tool-call")
    return tuple(_tool(one, column) for one in found)


def _tool(value: Any, column: str) -> Mapping[str, Any]:
    inner = value.get("function", value) if isinstance(value, Mapping) else None
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
        raise BadRow("holds no tool: expected {name, description, parameters}", column, check="tool-call")
    schema = inner.get("parameters", inner.get("input_schema")) or {"type": "object", "properties": {}}
    described = {"name": inner["name"], "description": inner.get("description") or "", "parameters": schema}
    return {"type": "function", "function": described}


def closed(messages: Sequence[Message], column: str) -> None:
    """Every call has its result, and every result its call; the last turn may be a call. Raises BadRow."""
    waiting: list[str | None] = []
    for index, message in enumerate(messages):
        if message["role"] == "tool":
            _answer(waiting, message.get("tool_call_id"), f"{column}[{index}]")
            continue
        if waiting:
            which = f"{len(waiting)} of the calls before it" if len(waiting) > 1 else "the call before it"
            raise BadRow(f"comes before the result of {which}", f"{column}[{index}]", check="tool-call")
        waiting = [c.get("id") for c in message.get("tool_calls") or ()]


def _answer(waiting: list[str | None], identity: Any, column: str) -> None:
    if not waiting:
        raise BadRow("is the result of a call that is not there", column, check="tool-call")
    if identity is None or None in waiting:
        waiting.pop(0)
    elif identity in waiting:
        waiting.remove(identity)
    else:
        raise BadRow(f"answers the call {str(identity)[:40]!r}, which is not there", column, check="tool-call")
