"""Answers each rated by itself: a prompt, a completion, and whether it is good."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from axoc_runtime.ingest.base import BadRow, Rated, Schema
from axoc_runtime.ingest.turns import ASKED, answer, asked, to_answer, turns

LABELS: Final = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
"""As CSV has them."""


class RatedAnswers(Schema):
    name = "rated"
    makes = Rated
    columns = ("completion", "label")
    optional = ("prompt", "question", "instruction", "input", "conversations", "messages", "system", "tools")

    def fits(self, columns: frozenset[str]) -> bool:
        return super().fits(columns) and bool(columns & set(ASKED))

    def convert(self, row: Mapping[str, Any]) -> Rated:
        found = asked(row)
        if found is None:
            raise BadRow("has no prompt", "prompt")
        column, prompt = found
        said = answer(turns(row["completion"], "completion", role="assistant"), "completion")
        return Rated(
            prompt=to_answer(prompt, column, row.get("tools")), completion=said, good=self._label(row["label"])
        )

    @staticmethod
    def _label(value: Any) -> bool:
        known = LABELS.get(str(value).lower())
        if known is None:
            raise BadRow(f"is {str(value)[:40]!r}, expected true or false", "label")
        return known
