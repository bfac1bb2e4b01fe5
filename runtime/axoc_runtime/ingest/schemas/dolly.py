"""Dolly: an instruction, maybe a context, a response."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from axoc_runtime.ingest.base import Conversation, Schema
from axoc_runtime.ingest.messages import text
from axoc_runtime.ingest.schemas.columns import asked_and_answered
from axoc_runtime.ingest.schemas.rationale import REASONED


class Dolly(Schema):
    name = "dolly"
    makes = Conversation
    columns = ("instruction", "response")
    optional = ("context", "category")
    without = REASONED

    def convert(self, row: Mapping[str, Any]) -> Conversation:
        question, context = text(row, "instruction"), text(row, "context", default="")
        asked = f"{context}\n\n{question}" if context else question
        return asked_and_answered(asked, text(row, "response"), column="response")
