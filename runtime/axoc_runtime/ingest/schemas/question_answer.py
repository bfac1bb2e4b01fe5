"""A question and its answer, under the names people give these columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from axoc_runtime.ingest.base import Conversation, Schema
from axoc_runtime.ingest.messages import conversation, message, text
from axoc_runtime.ingest.schemas.rationale import REASONED

PAIRS: Final = (
    ("question", "answer"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("query", "response"),
    ("input", "output"),
)


class QuestionAnswer(Schema):
    name = "question_answer"
    makes = Conversation
    columns = ()
    optional = ("system", *dict.fromkeys(name for pair in PAIRS for name in pair))
    without = ("instruction", "context", *REASONED)
    """Alpaca's input is only a part of the question."""

    def fits(self, columns: frozenset[str]) -> bool:
        return super().fits(columns) and any(set(pair) <= columns for pair in PAIRS)

    def convert(self, row: Mapping[str, Any]) -> Conversation:
        asked, answered = next((p for p in PAIRS if set(p) <= set(row)), PAIRS[0])
        system = text(row, "system", default="")
        first = [message("system", system)] if system else []
        said = [message("user", text(row, asked)), message("assistant", text(row, answered))]
        return conversation([*first, *said], answered)
