"""Intel's Orca pairs: a system prompt, a question, two answers as texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from axoc_runtime.ingest.base import Preference, Schema
from axoc_runtime.ingest.messages import text
from axoc_runtime.ingest.schemas.compared import compared


class Intel(Schema):
    name = "intel"
    makes = Preference
    columns = ("system", "question", "chosen", "rejected")

    def fits(self, columns: frozenset[str]) -> bool:
        return False  # preference reads these rows too

    def convert(self, row: Mapping[str, Any]) -> Preference:
        answers = text(row, "chosen"), text(row, "rejected")
        system = text(row, "system", default="")
        return compared(text(row, "question"), answers, ("chosen", "rejected"), system=system)
