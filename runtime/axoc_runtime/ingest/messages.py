"""Helpers for schemas: checked text and messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from axoc_runtime.ingest.base import BadRow, Conversation, Message
from axoc_runtime.ingest.tool_calls import calls, closed

ROLES: Final = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "ai": "assistant",
    "prompter": "user",
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
        raise BadRow("is empty" if column in row else "is missing", column, check="empty")
    if not isinstance(value, str):
        raise BadRow(f"is {type(value).__name__}, expected text", column, check="type")
    if not value.strip() and default is None:
        raise BadRow("is blank", column, check="empty")
    return value


def message(role: str, content: str, **more: Any) -> Message:
    """``more``: tool_calls, tool_call_id, name, weight; what is None or empty is left out."""
    kept = {k: v for k, v in more.items() if v is not None and v != [] and v != ""}
    return {"role": role, "content": content, **kept}


def known_role(name: Any, column: str) -> str:
    """The chat template's name of a speaker. Raises BadRow."""
    role = ROLES.get(str(name).lower())
    if role is None:
        known = ", ".join(ROLES)
        raise BadRow(f"has the unknown role {str(name)[:40]!r}; known: {known}", column, check="unknown-role")
    return role


def conversation(messages: Iterable[Message], column: str, tools: Iterable[Mapping[str, Any]] = ()) -> Conversation:
    """Checked: an answer to something, in an order that means something, with every tool call closed. Raises BadRow."""
    found = tuple(_with_calls(m, f"{column}[{i}]") for i, m in enumerate(messages))
    roles = [m["role"] for m in found]
    if "assistant" not in roles:
        raise BadRow("has no turn of the assistant: there is nothing to train on", column, check="role-order")
    ordered(found, column)
    return Conversation(messages=found, tools=tuple(tools))


def ordered(messages: Sequence[Message], column: str) -> None:
    """Raises BadRow."""
    roles = [m["role"] for m in messages]
    if roles[0] == "assistant" or "system" in roles[1:]:
        message = "must begin with a user's turn, and a system prompt can only come first"
        raise BadRow(message, column, check="role-order")
    closed(messages, column)


def _with_calls(said: Message, column: str) -> Message:
    if not said.get("tool_calls"):
        return said
    if said["role"] != "assistant":
        raise BadRow(f"has the {said['role']} call a tool", column, check="tool-call")
    return {**said, "tool_calls": calls(said["tool_calls"], column)}
