"""Helpers of schemas whose columns each hold one text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from axoc_runtime.ingest.base import Conversation
from axoc_runtime.ingest.messages import conversation, message, text


def asked_and_answered(question: str, answer: str, *, system: str = "", column: str) -> Conversation:
    """One question, one answer. ``column``: of the answer, for messages."""
    first = [message("system", system)] if system else []
    return conversation([*first, message("user", question), message("assistant", answer)], column)


def joined(row: Mapping[str, Any], *columns: str) -> str:
    """Texts of columns, a blank line between; empty ones are left out. Raises BadRow."""
    return "\n\n".join(t for t in (text(row, c, default="") for c in columns) if t)


def first_of(columns: frozenset[str] | Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    """The first of ``names`` that is there."""
    return next((name for name in names if name in columns), None)
