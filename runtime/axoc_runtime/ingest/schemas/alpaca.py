"""Alpaca: an instruction, maybe an input, an output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from axoc_runtime.ingest.base import Conversation, Schema
from axoc_runtime.ingest.messages import conversation, message, text


class Alpaca(Schema):
    name = "alpaca"
    makes = Conversation
    columns = ("instruction", "output")
    optional = ("input", "system", "history")

    def convert(self, row: Mapping[str, Any]) -> Conversation:
        system, given = text(row, "system", default=""), text(row, "input", default="")
        question = text(row, "instruction")
        turns = [message("system", system)] if system else []
        for asked, answered in row.get("history") or ():
            turns += [message("user", str(asked)), message("assistant", str(answered))]
        turns.append(message("user", f"{question}\n\n{given}" if given else question))
        return conversation([*turns, message("assistant", text(row, "output"))], "output")
