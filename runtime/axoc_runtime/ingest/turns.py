"""Turns in either of the two spellings, {from, value} and {role, content}, and prompts made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from axoc_runtime.ingest.base import BadRow, Conversation, Message
from axoc_runtime.ingest.messages import known_role, message, ordered, text
from axoc_runtime.ingest.tool_calls import calls, tools

ASKED: Final = ("prompt", "question", "instruction", "conversations", "messages", "input")
"""Columns that hold what is to be answered: text, or turns."""
IMAGE_PARTS: Final = ("image", "image_url", "input_image")


CALLING: Final = ("function_call", "tool_call")
"""Speakers in ShareGPT's spelling whose text is the JSON of a call."""


def turn(value: Any, column: str) -> Message:
    """A message in either spelling, with its calls, its result's id, and its weight. Raises BadRow."""
    if not isinstance(value, dict | Mapping):  # dict first: to ask for a Mapping takes ten times as long
        raise BadRow("is no turn: expected {role, content} or {from, value}", column, check="type")
    speaker = value.get("role", value.get("from"))
    content = content_of(value.get("content", value.get("value")), column)
    if str(speaker) in CALLING:
        return message("assistant", "", tool_calls=calls(content, column), weight=_weight(value, column))
    called = value.get("tool_calls") or value.get("function_call")
    if not content.strip() and not called:
        raise BadRow("has a turn without text", column, check="empty")
    return message(
        known_role(speaker, column),
        content,
        tool_calls=calls(called, column) if called else None,
        name=value.get("name"),
        tool_call_id=value.get("tool_call_id"),
        weight=_weight(value, column),
    )


def content_of(value: Any, column: str) -> str:
    """Text, or OpenAI's parts of it; empty where there is none. Raises BadRow."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if not isinstance(value, Sequence):
        raise BadRow(f"has a {type(value).__name__} in place of text", column, check="type")
    kinds = [part.get("type") if isinstance(part, Mapping) else None for part in value]
    if any(kind in IMAGE_PARTS for kind in kinds):
        raise BadRow("holds an image", column, check="image", fix="set dataset.type: vision_chat")
    if any(kind != "text" for kind in kinds):
        raise BadRow("has parts that are no text", column, check="type")
    return "".join(str(part.get("text") or "") for part in value)


def _weight(value: Mapping[str, Any], column: str) -> int | None:
    """0 for a turn that is not trained on, else None. Raises BadRow."""
    found = value.get("weight", value.get("train"))
    if found is None or found == 1:
        return None
    if found == 0:
        return 0
    raise BadRow(f"has the weight {str(found)[:20]}", column, check="value", fix="0 leaves a turn out, 1 trains on it")


def turns(value: Any, column: str, *, role: str) -> list[Message]:
    """Text is one turn of ``role``; a mapping is a turn; a list is several. Raises BadRow."""
    if isinstance(value, str):
        if not value.strip():
            raise BadRow("is empty", column, check="empty")
        return [message(role, value)]
    if isinstance(value, Mapping):
        return [turn(value, column)]
    if isinstance(value, Sequence) and len(value):
        return [turn(item, f"{column}[{i}]") for i, item in enumerate(value)]
    raise BadRow(f"is {type(value).__name__}, expected text, a turn, or a list of turns", column, check="type")


def asked(row: Mapping[str, Any]) -> tuple[str, list[Message]] | None:
    """(column, turns) of the first column that holds a prompt; with the row's system prompt, and Alpaca's input after
    its instruction. None where there is no such column."""
    column = next((name for name in ASKED if row.get(name)), None)
    if column is None:
        return None
    said = turns(row[column], column, role="user")
    given = text(row, "input", default="") if column == "instruction" else ""
    if given:
        said[-1] = message("user", f"{said[-1]['content']}\n\n{given}")
    system = text(row, "system", default="")
    return column, [message("system", system), *said] if system and said[0]["role"] != "system" else said


def to_answer(messages: Sequence[Message], column: str, offered: Any = None) -> Conversation:
    """A prompt: it ends where the assistant is to speak. ``offered``: the row's tools. Raises BadRow."""
    roles = [m["role"] for m in messages]
    if not roles or roles[-1] not in ("user", "tool"):
        raise BadRow("must end with a user's turn: the answers come after it", column, check="role-order")
    ordered(messages, column)
    return Conversation(messages=tuple(messages), tools=tools(offered, "tools"))


def answer(said: Sequence[Message], column: str) -> Message:
    """The last turn, which must be the assistant's. Raises BadRow."""
    if said[-1]["role"] != "assistant":
        raise BadRow("must end with a turn of the assistant", column, check="role-order")
    return said[-1]
