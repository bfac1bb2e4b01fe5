"""Rows that were tokenized elsewhere: ``input_ids``, and maybe ``labels``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from axoc_runtime.ingest.base import BadRow, Schema, Tokens

IGNORED: Final = -100


class Tokenized(Schema):
    """Without ``labels`` all tokens are trained on, but those where ``attention_mask`` is 0."""

    name = "tokenized"
    makes = Tokens
    columns = ("input_ids",)
    optional = ("labels", "attention_mask", "token_type_ids", "position_ids")

    def convert(self, row: Mapping[str, Any]) -> Tokens:
        ids = _integers(row["input_ids"], "input_ids", minimum=0)
        if not ids:
            raise BadRow("is empty", "input_ids", check="empty")
        mask = _same_length(row, "attention_mask", ids, minimum=0) or (1,) * len(ids)
        labels = _same_length(row, "labels", ids, minimum=IGNORED) or ids
        kept = [(i, label) for i, label, on in zip(ids, labels, mask, strict=True) if on]
        if any(label not in (IGNORED, i) for i, label in kept):
            message = "are neither the tokens themselves nor -100"
            raise BadRow(message, "labels", fix="do not shift them: the model does that")
        return Tokens(input_ids=tuple(i for i, _ in kept), labels=tuple(label for _, label in kept))


def _same_length(row: Mapping[str, Any], column: str, ids: tuple[int, ...], *, minimum: int) -> tuple[int, ...]:
    """Empty where there is no such column. Raises BadRow."""
    if row.get(column) is None:
        return ()
    found = _integers(row[column], column, minimum=minimum)
    if len(found) != len(ids):
        raise BadRow(f"has {len(found)} entries, and input_ids {len(ids)}", column)
    return found


def _integers(value: Any, column: str, *, minimum: int) -> tuple[int, ...]:
    if not isinstance(value, list | tuple):
        raise BadRow(f"is {type(value).__name__}, expected a list of token ids", column, check="type")
    wrong = next((v for v in value if isinstance(v, bool) or not isinstance(v, int) or v < minimum), None)
    if wrong is not None:
        raise BadRow(f"holds {str(wrong)[:20]!r}, which is no token id", column, check="type")
    return tuple(value)
