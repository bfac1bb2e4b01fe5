"""Turns in either of the two spellings, {from, value} and {role, content}, and prompts made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from axoc_runtime.ingest.base import BadRow, Conversation, Message
from axoc_runtime.ingest.messages import known_role, message, text

ASKED: Final = ("prompt", "question", "instruction", "conversations", "messages")
"""Columns that hold what is to be answered: text, or turns."""


def turn(value: Any, column: str) -> Message:
    """Raises BadRow."""
    if not isinstance(value, Mapping):
        raise BadRow("is no turn: expected {role, content} or {from, value}", column)
    content = value.get("content", value.get("value"))
    if not isinstance(content, str) or not content:
        raise BadRow("has a turn without text", column)
    return message(known_role(value.get("role", value.get("from")), column), content)


def turns(value: Any, column: str, *, role: str) -> list[Message]:
    """Text is one turn of ``role``; a mapping is a turn; a list is several. Raises BadRow."""
    if isinstance(value, str):
        if not value:
            raise BadRow("is empty", column)
        return [message(role, value)]
    if isinstance(value, Mapping):
        return [turn(value, column)]
    if isinstance(value, Sequence) and len(value):
        return [turn(item, f"{column}[{i}]") for i, item in enumerate(value)]
    raise BadRow(f"is {type(value).__name__}, expected text, a turn, or a list of turns", column)


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


def to_answer(messages: Sequence[Message], column: str) -> Conversation:
    """A prompt: it ends where the assistant is to speak. Raises BadRow."""
    roles = [m["role"] for m in messages]
    if not roles or roles[-1] not in ("user", "tool"):
        raise BadRow("must end with a user's turn: the answers come after it", column)
    if roles[0] == "assistant" or "system" in roles[1:]:
        raise BadRow("must begin with a user's turn, and a system prompt can only come first", column)
    return Conversation(messages=tuple(messages))


def answer(said: Sequence[Message], column: str) -> Message:
    """The last turn, which must be the assistant's. Raises BadRow."""
    if said[-1]["role"] != "assistant":
        raise BadRow("must end with a turn of the assistant", column)
    return said[-1]
