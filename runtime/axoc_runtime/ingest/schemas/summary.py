"""A text and its summary, under the names people give these columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from axoc_runtime.ingest.base import BadRow, Conversation, Schema
from axoc_runtime.ingest.messages import text
from axoc_runtime.ingest.schemas.columns import asked_and_answered, first_of

LONG: Final = ("article", "document", "dialogue", "text")
SHORT: Final = ("summary", "highlights", "tldr")
ASKS: Final = "Summarize the following text."


class Summary(Schema):
    """A column ``instruction`` says it in other words."""

    name = "summary"
    makes = Conversation
    columns = ()
    optional = ("instruction", "system", *LONG, *SHORT)

    def fits(self, columns: frozenset[str]) -> bool:
        return super().fits(columns) and first_of(columns, LONG) is not None and first_of(columns, SHORT) is not None

    def convert(self, row: Mapping[str, Any]) -> Conversation:
        long, short = first_of(row, LONG), first_of(row, SHORT)
        if long is None or short is None:
            missing = (" or ".join(LONG), "article") if long is None else (" or ".join(SHORT), "summary")
            raise BadRow(f"has no column {missing[0]}", missing[1], check="missing-column")
        asked = f"{text(row, 'instruction', default=ASKS)}\n\n{text(row, long)}"
        return asked_and_answered(asked, text(row, short), system=text(row, "system", default=""), column=short)
