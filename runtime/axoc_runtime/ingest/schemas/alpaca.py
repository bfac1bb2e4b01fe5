"""Alpaca: an instruction, maybe an input, an output. Its variants are named by the column they add."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from axoc_runtime.ingest.base import BadRow, Conversation, Message, Schema
from axoc_runtime.ingest.messages import conversation, message, text
from axoc_runtime.ingest.schemas.rationale import REASONED


class Alpaca(Schema):
    name = "alpaca"
    makes = Conversation
    columns: ClassVar[tuple[str, ...]] = ("instruction", "output")
    optional: ClassVar[tuple[str, ...]] = ("input", "system", "history")
    without = REASONED

    def convert(self, row: Mapping[str, Any]) -> Conversation:
        system, given = text(row, "system", default=""), text(row, "input", default="")
        question = text(row, "instruction")
        turns = [message("system", system)] if system else []
        turns += _history(row.get("history"))
        turns.append(message("user", f"{question}\n\n{given}" if given else question))
        return conversation([*turns, message("assistant", text(row, "output"))], "output")


class AlpacaSystem(Alpaca):
    """Every row brings a system prompt."""

    name = "alpaca_system"
    columns = ("instruction", "output", "system")
    optional = ("input", "history")

    def fits(self, columns: frozenset[str]) -> bool:
        return False  # alpaca reads these rows too


class AlpacaChat(Alpaca):
    """The turns before stand in ``history``: a list of [asked, answered]."""

    name = "alpaca_chat"
    columns = ("instruction", "output", "history")
    optional = ("input", "system")

    def fits(self, columns: frozenset[str]) -> bool:
        return False  # alpaca reads these rows too


def _history(value: Any) -> list[Message]:
    """Raises BadRow."""
    said: list[Message] = []
    if value is not None and not isinstance(value, list | tuple):
        raise BadRow(f"is {type(value).__name__}, expected a list of [asked, answered]", "history", check="type")
    for index, pair in enumerate(value or ()):
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(t, str) and t for t in pair):
            raise BadRow("is no pair of texts, [asked, answered]", f"history[{index}]", check="type")
        said += [message("user", pair[0]), message("assistant", pair[1])]
    return said
