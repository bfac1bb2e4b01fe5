"""A question about a context, and its answer: reading comprehension, and SQuAD's own spelling of answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from axoc_runtime.ingest.base import BadRow, Conversation, Schema
from axoc_runtime.ingest.messages import text
from axoc_runtime.ingest.schemas.columns import asked_and_answered, first_of

ANSWERS = ("answer", "answers")


class ContextAnswer(Schema):
    name = "context_answer"
    makes = Conversation
    columns = ("question", "context")
    optional = ("system", "title", *ANSWERS)

    def fits(self, columns: frozenset[str]) -> bool:
        return super().fits(columns) and first_of(columns, ANSWERS) is not None

    def convert(self, row: Mapping[str, Any]) -> Conversation:
        column = first_of(row, ANSWERS)
        if column is None:
            raise BadRow("has no column answer or answers", "answer", check="missing-column")
        asked = f"{text(row, 'context')}\n\n{text(row, 'question')}"
        system = text(row, "system", default="")
        return asked_and_answered(asked, _answer(row[column], column), system=system, column=column)


def _answer(value: Any, column: str) -> str:
    """The first one, where several are right. Raises BadRow."""
    found = value.get("text") if isinstance(value, Mapping) else value
    first = found[0] if isinstance(found, list | tuple) and found else found
    return text({column: first}, column)
