"""An instruction, the reasoning, and the answer: the model is taught to reason first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from axoc_runtime.ingest.base import BadRow, Conversation, Schema
from axoc_runtime.ingest.messages import text
from axoc_runtime.ingest.schemas.columns import asked_and_answered, first_of, joined

ASKED: Final = ("instruction", "question", "problem", "source")
REASONED: Final = ("rationale", "reasoning", "chain_of_thought", "thought")
ANSWERED: Final = ("output", "answer", "response", "target")


class Rationale(Schema):
    name = "rationale"
    makes = Conversation
    columns = ()
    optional = ("input", "system", *ASKED, *REASONED, *ANSWERED)

    def fits(self, columns: frozenset[str]) -> bool:
        return super().fits(columns) and all(
            first_of(columns, names) is not None for names in (ASKED, REASONED, ANSWERED)
        )

    def convert(self, row: Mapping[str, Any]) -> Conversation:
        asked, reasoned, answered = (_named(row, names) for names in (ASKED, REASONED, ANSWERED))
        text(row, asked)
        said = f"{text(row, reasoned)}\n\n{text(row, answered)}"
        question = joined(row, asked, "input")
        return asked_and_answered(question, said, system=text(row, "system", default=""), column=answered)


def _named(row: Mapping[str, Any], names: tuple[str, ...]) -> str:
    found = first_of(row, names)
    if found is None:
        raise BadRow(f"has no column {' or '.join(names)}", names[0], check="missing-column")
    return found
