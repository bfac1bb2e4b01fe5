"""ShareGPT: ``conversations`` of {from, value}; system prompt and tools may stand in columns of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from axoc_runtime.ingest.base import Conversation, Schema
from axoc_runtime.ingest.messages import conversation
from axoc_runtime.ingest.schemas.chat import spoken
from axoc_runtime.ingest.tool_calls import tools


class ShareGpt(Schema):
    name = "sharegpt"
    makes = Conversation
    columns = ("conversations",)
    optional = ("system", "id", "tools")
    without = ("chosen", "rejected", "label")

    def convert(self, row: Mapping[str, Any]) -> Conversation:
        return conversation(spoken(row, "conversations"), "conversations", tools(row.get("tools"), "tools"))
