"""Raw text under another name than ``text``, as crawls and document stores have it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from axoc_runtime.ingest.base import BadRow, Document, Schema
from axoc_runtime.ingest.messages import text
from axoc_runtime.ingest.schemas.columns import first_of

NAMES: Final = ("content", "raw_content", "document", "body", "markdown")
BESIDE: Final = frozenset({"id", "url", "title", "date", "timestamp", "source", "language", "lang", "meta", "metadata"})
"""Columns that may stand beside without making the row something else."""


class RawText(Schema):
    name = "raw_text"
    makes = Document
    columns = ()
    optional = (*NAMES, *sorted(BESIDE))

    def fits(self, columns: frozenset[str]) -> bool:
        return super().fits(columns) and len(columns & set(NAMES)) == 1 and columns <= BESIDE | set(NAMES)

    def convert(self, row: Mapping[str, Any]) -> Document:
        column = first_of(row, NAMES)
        if column is None:
            raise BadRow(f"has no column {' or '.join(NAMES)}", NAMES[0], check="missing-column")
        return Document(text=text(row, column))
