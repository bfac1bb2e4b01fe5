"""Plain text in one column: continued pre-training, or completions without a prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from axoc_runtime.ingest.base import Document, Schema
from axoc_runtime.ingest.messages import text
from axoc_runtime.ingest.schemas.summary import SHORT


class Completion(Schema):
    name = "completion"
    makes = Document
    columns = ("text",)
    without = (*SHORT, "instruction")
    """Alpaca's own file has each row once more as ``text``, written out for a template."""

    def convert(self, row: Mapping[str, Any]) -> Document:
        return Document(text=text(row, "text"))
