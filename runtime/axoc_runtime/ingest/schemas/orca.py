"""Orca: a system prompt, a question, a response."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from axoc_runtime.ingest.base import Conversation, Schema
from axoc_runtime.ingest.messages import text
from axoc_runtime.ingest.schemas.columns import asked_and_answered


class Orca(Schema):
    name = "orca"
    makes = Conversation
    columns = ("system_prompt", "question", "response")

    def convert(self, row: Mapping[str, Any]) -> Conversation:
        system = text(row, "system_prompt", default="")
        return asked_and_answered(text(row, "question"), text(row, "response"), system=system, column="response")
