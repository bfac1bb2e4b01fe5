"""Prompts alone, for objectives that sample answers themselves; ``answer`` is what a reward function compares with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from axoc_runtime.ingest.base import BadRow, Prompt, Schema
from axoc_runtime.ingest.messages import text
from axoc_runtime.ingest.turns import asked, to_answer


class Prompts(Schema):
    name = "prompts"
    makes = Prompt
    columns = ("prompt",)
    optional = ("answer", "system", "tools")
    without = ("completion", "response", "chosen", "rejected", "label")

    def convert(self, row: Mapping[str, Any]) -> Prompt:
        found = asked(row)
        if found is None:
            raise BadRow("is empty", "prompt")
        column, prompt = found
        return Prompt(prompt=to_answer(prompt, column, row.get("tools")), answer=text(row, "answer", default=""))
