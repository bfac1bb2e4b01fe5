"""A question and its answer, under the names people give these columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from axoc_runtime.ingest.base import Conversation, Message, Schema
from axoc_runtime.ingest.messages import conversation, message, text
from axoc_runtime.ingest.schemas.rationale import REASONED
from axoc_runtime.ingest.turns import turns

PAIRS: Final = (
    ("question", "answer"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("query", "response"),
    ("input", "output"),
)
RATED: Final = frozenset({"completion", "label"})
"""Of which some are bad: learning them all would teach those too."""


class QuestionAnswer(Schema):
    """Each is a text, or a list of turns."""

    name = "question_answer"
    makes = Conversation
    columns = ()
    optional = ("system", *dict.fromkeys(name for pair in PAIRS for name in pair))
    without = ("instruction", "context", *REASONED)
    """Alpaca's input is only a part of the question."""

    def fits(self, columns: frozenset[str]) -> bool:
        return super().fits(columns) and not columns >= RATED and any(set(pair) <= columns for pair in PAIRS)

    def convert(self, row: Mapping[str, Any]) -> Conversation:
        asked, answered = next((p for p in PAIRS if set(p) <= set(row)), PAIRS[0])
        system = text(row, "system", default="")
        first = [message("system", system)] if system else []
        said = [m for name, role in ((asked, "user"), (answered, "assistant")) for m in self._said(row, name, role)]
        return conversation([*([] if said[0]["role"] == "system" else first), *said], answered)

    @staticmethod
    def _said(row: Mapping[str, Any], column: str, role: str) -> list[Message]:
        value = row.get(column)
        return turns(value, column, role=role) if isinstance(value, list) else [message(role, text(row, column))]
