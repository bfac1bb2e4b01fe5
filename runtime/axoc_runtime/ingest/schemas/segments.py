"""Input and output segments: the text as it is to be read, piece by piece, and which pieces are trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from axoc_runtime.ingest.base import BadRow, Schema, Segments


class InputOutput(Schema):
    """``segments`` of {text, label}. No chat template is applied: special tokens stand in the text itself."""

    name = "segments"
    makes = Segments
    columns = ("segments",)

    def convert(self, row: Mapping[str, Any]) -> Segments:
        value = row["segments"]
        if not isinstance(value, list) or not value:
            raise BadRow("is no list of segments", "segments", check="type")
        parts = tuple(self._part(one, f"segments[{i}]") for i, one in enumerate(value))
        if not any(on and part for part, on in parts):
            raise BadRow("has no segment with label true: there is nothing to train on", "segments", check="empty")
        return Segments(parts=parts)

    @staticmethod
    def _part(value: Any, column: str) -> tuple[str, bool]:
        if not isinstance(value, Mapping) or not isinstance(value.get("text"), str):
            raise BadRow("is no segment: expected {text, label}", column, check="type")
        label = value.get("label")
        if not isinstance(label, bool):
            raise BadRow(f"has the label {str(label)[:20]!r}, expected true or false", column, check="type")
        return value["text"], label
