"""Support tickets: `user_query`, `assistant_response` and, where a tool was used, `tool_calls`."""

from collections.abc import Mapping
from typing import Any

from axoc_runtime.ingest.base import Conversation, Schema
from axoc_runtime.ingest.messages import conversation, message, text


class Tickets(Schema):
    name = "tickets"
    columns = ("user_query", "assistant_response")
    optional = ("tool_calls",)

    def convert(self, row: Mapping[str, Any]) -> Conversation:
        asked = message("user", text(row, "user_query"))
        answered = message("assistant", text(row, "assistant_response"), tool_calls=row.get("tool_calls"))
        return conversation([asked, answered], "assistant_response")
