"""Argilla's pairs: an instruction, the response that was chosen and the one that was rejected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from axoc_runtime.ingest.base import Preference, Schema
from axoc_runtime.ingest.messages import text
from axoc_runtime.ingest.schemas.compared import compared


class Argilla(Schema):
    name = "argilla"
    makes = Preference
    columns = ("instruction", "chosen_response", "rejected_response")
    optional = ("system", "chosen_avg_rating", "rejected_avg_rating")

    def convert(self, row: Mapping[str, Any]) -> Preference:
        return compared(
            text(row, "instruction"),
            (text(row, "chosen_response"), text(row, "rejected_response")),
            ("chosen_response", "rejected_response"),
            system=text(row, "system", default=""),
        )
