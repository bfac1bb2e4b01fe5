"""Helpers for schemas: checked text and messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from axoc_runtime.ingest.base import BadRow, Conversation, Message

ROLES: Final = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function": "tool",
    "function_response": "tool",
}
"""What data sets call the speakers, and what chat templates call them."""


def text(row: Mapping[str, Any], column: str, *, default: str | None = None) -> str:
    """The column as text. Empty or absent: ``default``, or BadRow where there is none."""
    value = row.get(column)
    if value is None or value == "":
        if default is not None:
            return default
        raise BadRow("is empty" if column in row else "is missing", column)
    if not isinstance(value, str):
        raise BadRow(f"is {type(value).__name__}, expected text", column)
    return value


def message(role: str, content: str, **more: Any) -> Message:
    return {"role": role, "content": content, **{k: v for k, v in more.items() if v}}


def known_role(name: Any, column: str) -> str:
    """The chat template's name of a speaker. Raises BadRow."""
    role = ROLES.get(str(name).lower())
    if role is None:
        raise BadRow(f"has the unknown role {str(name)[:40]!r}; known: {', '.join(ROLES)}", column)
    return role


def conversation(messages: Iterable[Message], column: str, tools: Iterable[Mapping[str, Any]] = ()) -> Conversation:
    """Checked: there is something to answer, and an answer. Raises BadRow."""
    found = tuple(messages)
    roles = [m["role"] for m in found]
    if "assistant" not in roles:
        raise BadRow("has no turn of the assistant: there is nothing to train on", column)
    if roles[0] == "assistant" or "system" in roles[1:]:
        raise BadRow("must begin with a user's turn, and a system prompt can only come first", column)
    return Conversation(messages=found, tools=tuple(tools))
