"""OpenAI's messages: ``messages`` of {role, content}."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from axoc_runtime.ingest.base import BadRow, Conversation, Schema
from axoc_runtime.ingest.messages import conversation, known_role, message


class Chat(Schema):
    name = "chat"
    makes = Conversation
    columns = ("messages",)
    optional = ("tools",)

    def fits(self, columns: frozenset[str]) -> bool:
        """Not where answers stand beside: those rows are pairs, or rated."""
        return super().fits(columns) and not columns & {"chosen", "rejected", "label"}

    def convert(self, row: Mapping[str, Any]) -> Conversation:
        turns = row["messages"]
        if not isinstance(turns, list) or not turns:
            raise BadRow("is no list of messages", "messages")
        said = [self._message(turn, f"messages[{i}]") for i, turn in enumerate(turns)]
        return conversation(said, "messages", row.get("tools") or ())

    @staticmethod
    def _message(turn: Any, column: str) -> dict[str, Any]:
        if not isinstance(turn, Mapping):
            raise BadRow("is no message: expected {role, content}", column)
        calls, content = turn.get("tool_calls"), turn.get("content")
        if not isinstance(content, str) and not (content is None and calls):
            raise BadRow("has no text in content", column)
        return message(known_role(turn.get("role"), column), content or "", tool_calls=calls, name=turn.get("name"))
