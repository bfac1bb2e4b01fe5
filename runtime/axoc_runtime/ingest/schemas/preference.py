"""Pairs: a prompt, an answer that was chosen, one that was rejected. The answers are text, a turn, or whole
conversations; the prompt has a column of its own, or is what both conversations begin with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from axoc_runtime.ingest.base import BadRow, Message, Preference, Schema, columns_of
from axoc_runtime.ingest.schemas.reward_pairs import is_transcript
from axoc_runtime.ingest.turns import ASKED, answer, asked, to_answer, turns


class PreferencePairs(Schema):
    name = "preference"
    makes = Preference
    columns = ("chosen", "rejected")
    optional = ("prompt", "question", "instruction", "input", "conversations", "messages", "system", "tools")

    def recognizes(self, row: Mapping[str, Any]) -> bool:
        return super().recognizes(row) and not (is_transcript(row["chosen"]) and not columns_of(row) & set(ASKED))

    def convert(self, row: Mapping[str, Any]) -> Preference:
        chosen = turns(row["chosen"], "chosen", role="assistant")
        rejected = turns(row["rejected"], "rejected", role="assistant")
        column, prompt = asked(row) or ("chosen", chosen[:-1])
        self._same(prompt, chosen, "chosen")
        self._same(prompt, rejected, "rejected")
        if answer(chosen, "chosen")["content"] == answer(rejected, "rejected")["content"]:
            raise BadRow("is the same as chosen", "rejected", check="same-answers", fix="remove the pair")
        return Preference(prompt=to_answer(prompt, column, row.get("tools")), chosen=chosen[-1], rejected=rejected[-1])

    @staticmethod
    def _same(prompt: list[Message], said: list[Message], column: str) -> None:
        """A whole conversation repeats the prompt before its answer."""
        before = said[:-1]
        if before and before != prompt and before != [m for m in prompt if m["role"] != "system"]:
            raise BadRow("does not begin with the prompt", column)
