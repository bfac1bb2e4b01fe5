"""What is remembered of a row that is used, to be held against all the others: some numbers, whatever its length."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from axoc_runtime.ingest.base import Conversation, Document, Example, Message, Preference, Prompt, Rated, Record
from axoc_runtime.ingest.checks.speech import conversation_of
from axoc_runtime.ingest.split import row_key

LABEL_CHARACTERS: Final = 32
"""An answer up to this long may be a class of a few."""
NO_OFFSET: Final = -1


@dataclass(frozen=True, slots=True)
class Fact:
    """Of numbers and short texts alone: a process hands it to another as JSON."""

    key: int
    """Of the row, as the split is decided by."""
    asked: int
    """Of what is asked, or of a document's text, whatever its case and spaces; the same for near copies."""
    file: str
    indexed: bool
    """Whether its rows are named ``file[0]``, or ``file:1`` as lines are."""
    number: int
    offset: int
    label: str
    """good or bad of rated answers, or an answer that may be a class; empty where there is none."""
    system: bool | None
    """Whether a conversation brings a system prompt; None for other rows."""
    pair: bool
    """Whether it has a better and a worse answer."""


def fact_of(record: Record, example: Example, seed: int) -> Fact:
    spoken = conversation_of(example)
    return Fact(
        key=row_key(record.row, seed),
        asked=_asked(example),
        file=record.file or record.place,
        indexed=record.place.endswith("]"),
        number=record.number or 0,
        offset=NO_OFFSET if record.offset is None else record.offset,
        label=_label(example),
        system=None if spoken is None else spoken.messages[0]["role"] == "system",
        pair=isinstance(example, Preference),
    )


def _asked(example: Example) -> int:
    """Of all that comes before the last answer."""
    if isinstance(example, Document):
        text = example.text
    elif isinstance(example, Conversation):
        last = max(i for i, m in enumerate(example.messages) if m["role"] == "assistant")
        text = _joined(example.messages[:last])
    elif isinstance(example, Preference | Rated | Prompt):
        text = _joined(example.prompt.messages)
    else:
        text = repr(example)
    normal = " ".join(text.casefold().split())
    return int.from_bytes(hashlib.blake2b(normal.encode("utf-8", "replace"), digest_size=7).digest(), "big")


def _joined(messages: Sequence[Message]) -> str:
    return "\n".join(m["content"] for m in messages if m["role"] != "system")


def _label(example: Example) -> str:
    if isinstance(example, Rated):
        return "good" if example.good else "bad"
    if not isinstance(example, Conversation):
        return ""
    said = [m["content"] for m in example.messages if m["role"] == "assistant"]
    answer = str(said[-1]).strip() if len(said) == 1 else ""
    return answer if len(answer) <= LABEL_CHARACTERS else ""
