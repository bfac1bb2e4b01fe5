"""Reward pairs as transcripts: two texts with turns of "Human:" and "Assistant:" that differ in the last answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from axoc_runtime.ingest.base import BadRow, Message, Preference, Schema, columns_of
from axoc_runtime.ingest.messages import message
from axoc_runtime.ingest.turns import ASKED, answer, to_answer

TURN: Final = re.compile(r"\n\n(Human|Assistant):[ \n]?")
ROLES: Final = {"Human": "user", "Assistant": "assistant"}


class RewardPairs(Schema):
    name = "reward_pairs"
    makes = Preference
    columns = ("chosen", "rejected")

    def fits(self, columns: frozenset[str]) -> bool:
        return False  # the columns are those of preference: only a row tells

    def recognizes(self, row: Mapping[str, Any]) -> bool:
        columns = columns_of(row)
        alone = set(self.columns) <= columns and not columns & set(ASKED)
        return alone and is_transcript(row["chosen"]) and is_transcript(row["rejected"])

    def convert(self, row: Mapping[str, Any]) -> Preference:
        chosen, rejected = (self._turns(row[column], column) for column in self.columns)
        if chosen[:-1] != rejected[:-1]:
            raise BadRow("does not share the conversation before its last answer with chosen", "rejected")
        if answer(chosen, "chosen")["content"] == answer(rejected, "rejected")["content"]:
            raise BadRow("is the same as chosen", "rejected", check="same-answers", fix="remove the pair")
        return Preference(prompt=to_answer(chosen[:-1], "chosen"), chosen=chosen[-1], rejected=rejected[-1])

    @staticmethod
    def _turns(value: Any, column: str) -> list[Message]:
        if not is_transcript(value):
            raise BadRow('is no transcript: expected "\\n\\nHuman: … \\n\\nAssistant: …"', column, check="type")
        pieces = TURN.split(f"\n\n{value.strip()}")[1:]
        said = [message(ROLES[who], what.strip()) for who, what in zip(pieces[::2], pieces[1::2], strict=True)]
        if empty := next((i for i, m in enumerate(said) if not m["content"]), None):
            raise BadRow("has a turn without text", f"{column}[{empty}]", check="empty")
        return said


def is_transcript(value: Any) -> bool:
    return isinstance(value, str) and f"\n\n{value.lstrip()}".startswith("\n\nHuman:") and "\n\nAssistant:" in value
