"""Anthropic's messages: turns whose content is a list of blocks, among them tool_use and tool_result."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from axoc_runtime.ingest.base import BadRow, Conversation, Message, Schema
from axoc_runtime.ingest.messages import conversation, known_role, message
from axoc_runtime.ingest.schemas.chat import blocks
from axoc_runtime.ingest.tool_calls import calls, tools
from axoc_runtime.ingest.turns import content_of, turn


class AnthropicTools(Schema):
    name = "anthropic_tools"
    makes = Conversation
    columns = ("messages",)
    optional = ("system", "tools")

    def fits(self, columns: frozenset[str]) -> bool:
        return False  # the columns are those of chat: only a row tells

    def recognizes(self, row: Mapping[str, Any]) -> bool:
        kinds = {"tool_use", "tool_result"}
        shown = json.dumps(row.get("messages"), default=str) if "messages" in row else ""
        return blocks(row.get("messages")) and any(f'"{kind}"' in shown for kind in kinds)

    def convert(self, row: Mapping[str, Any]) -> Conversation:
        value = row["messages"]
        if not isinstance(value, list) or not value:
            raise BadRow("is no list of turns", "messages", check="type")
        system = content_of(row.get("system"), "system")
        said = [m for i, one in enumerate(value) for m in self._messages(one, f"messages[{i}]")]
        first = [message("system", system)] if system else []
        return conversation([*first, *said], "messages", tools(row.get("tools"), "tools"))

    def _messages(self, value: Any, column: str) -> Iterator[Message]:
        """Results come out as turns of the tool; a call joins what is said in its turn."""
        if not isinstance(value, Mapping) or not isinstance(value.get("content"), list):
            yield turn(value, column)
            return
        said, called = [], []
        for block in value["content"]:
            kind = block.get("type") if isinstance(block, Mapping) else None
            if kind == "tool_result":
                yield message("tool", _result(block, column), tool_call_id=block.get("tool_use_id"))
            elif kind == "tool_use":
                call = {"id": block.get("id"), "name": block.get("name"), "arguments": block.get("input")}
                called += calls(call, column)
            elif kind == "text":
                said.append(str(block.get("text") or ""))
            else:
                raise BadRow(f"has a block of the kind {str(kind)[:40]}", column, check="type")
        if said or called:
            yield message(known_role(value.get("role"), column), "\n".join(said), tool_calls=called)


def _result(block: Mapping[str, Any], column: str) -> str:
    """A tool may have nothing to say. Raises BadRow for what is no text, and would be left out."""
    return content_of(block.get("content"), column)
