"""Helper of schemas of pairs whose answers are texts."""

from __future__ import annotations

from axoc_runtime.ingest.base import BadRow, Preference
from axoc_runtime.ingest.messages import message
from axoc_runtime.ingest.turns import to_answer


def compared(question: str, answers: tuple[str, str], columns: tuple[str, str], *, system: str = "") -> Preference:
    """``answers``: the better one, the worse one. Raises BadRow where they are the same."""
    chosen, rejected = answers
    if chosen == rejected:
        raise BadRow(f"is the same as {columns[0]}", columns[1], check="same-answers", fix="remove the pair")
    first = [message("system", system)] if system else []
    prompt = to_answer([*first, message("user", question)], "prompt")
    return Preference(prompt=prompt, chosen=message("assistant", chosen), rejected=message("assistant", rejected))
