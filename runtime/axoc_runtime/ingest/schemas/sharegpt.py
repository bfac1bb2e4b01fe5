"""ShareGPT: ``conversations`` of {from, value}; a system prompt may stand in a column of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from axoc_runtime.ingest.base import BadRow, Conversation, Schema
from axoc_runtime.ingest.messages import conversation, known_role, message, text


class ShareGpt(Schema):
    name = "sharegpt"
    makes = Conversation
    columns = ("conversations",)
    optional = ("system", "id", "tools")

    def fits(self, columns: frozenset[str]) -> bool:
        """Not where answers stand beside: those rows are pairs, or rated."""
        return super().fits(columns) and not columns & {"chosen", "rejected", "label"}

    def convert(self, row: Mapping[str, Any]) -> Conversation:
        turns = row["conversations"]
        if not isinstance(turns, list) or not turns:
            raise BadRow("is no list of turns", "conversations")
        system = text(row, "system", default="")
        first = [message("system", system)] if system else []
        said = [self._turn(turn, f"conversations[{i}]") for i, turn in enumerate(turns)]
        return conversation([*first, *said], "conversations")

    @staticmethod
    def _turn(turn: Any, column: str) -> dict[str, Any]:
        if not isinstance(turn, Mapping):
            raise BadRow("is no turn: expected {from, value}", column)
        speaker = turn.get("from", turn.get("role"))
        content = turn.get("value", turn.get("content"))
        if str(speaker) in ("function_call", "tool_call"):
            raise BadRow("is a tool call: set dataset.type to a format that reads tool calls", column)
        if not isinstance(content, str):
            raise BadRow("has no text in value", column)
        return message(known_role(speaker, column), content)
