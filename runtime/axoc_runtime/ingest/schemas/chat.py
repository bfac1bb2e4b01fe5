"""OpenAI's messages: ``messages`` of {role, content}, maybe with calls of tools and a weight of 0 or 1 a turn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from axoc_runtime.ingest.base import BadRow, Conversation, Message, Schema
from axoc_runtime.ingest.messages import conversation, message, text
from axoc_runtime.ingest.tool_calls import tools
from axoc_runtime.ingest.turns import turn


class Chat(Schema):
    name = "chat"
    makes = Conversation
    columns: ClassVar[tuple[str, ...]] = ("messages",)
    optional: ClassVar[tuple[str, ...]] = ("system", "tools")
    without = ("chosen", "rejected", "label")

    def recognizes(self, row: Mapping[str, Any]) -> bool:
        return super().recognizes(row) and not blocks(row["messages"])

    def convert(self, row: Mapping[str, Any]) -> Conversation:
        return conversation(spoken(row, "messages"), "messages", tools(row.get("tools"), "tools"))


class OpenAiTools(Chat):
    """With the tools that may be called in a column of their own."""

    name = "openai_tools"
    columns = ("messages", "tools")
    optional = ("system", "parallel_tool_calls")

    def fits(self, columns: frozenset[str]) -> bool:
        return False  # chat reads these rows too


def spoken(row: Mapping[str, Any], column: str) -> list[Message]:
    """The turns of a column, after the row's system prompt where that stands beside. Raises BadRow."""
    value = row[column]
    if not isinstance(value, list) or not value:
        raise BadRow("is no list of turns", column, check="type")
    system = text(row, "system", default="")
    said = [turn(one, f"{column}[{i}]") for i, one in enumerate(value)]
    return [message("system", system), *said] if system and said[0]["role"] != "system" else said


def blocks(messages: Any) -> bool:
    """Whether turns are lists of blocks, of which some call tools or hold images: formats of their own read them."""
    turns = messages if isinstance(messages, list) else []
    parts = [p for m in turns if isinstance(m, Mapping) and isinstance(m.get("content"), list) for p in m["content"]]
    return any(isinstance(p, Mapping) and p.get("type") not in (None, "text") for p in parts)
