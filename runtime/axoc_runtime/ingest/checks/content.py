"""What stands in the text of a row that should not: broken characters, secrets, another template's markup."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from axoc_runtime.ingest.base import Record
from axoc_runtime.ingest.checks import secrets
from axoc_runtime.ingest.checks.finding import ERROR, WARNING, Finding, of_row
from axoc_runtime.ingest.checks.texts import texts, together

SURROGATE: Final = re.compile("[\ud800-\udfff]")
CONTROL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
CONTROLS: Final = bytes(n for n in range(128) if CONTROL.match(chr(n)))
MOJIBAKE: Final = re.compile(r"Ã[\x80-\xbf©¨ª«¬®¯°±²³´µ¶·¸¹º»¼½¾¿]|â€[™œ\x9d“”˜¦]|Â[ \xa0©®°±·»]")
"""UTF-8 that was once read as Latin-1 or Windows-1252."""
MOJIBAKE_HINTS: Final = ("Ã", "Â", "â€")
MARKUP: Final = re.compile(
    r"<\|(?:im_start|im_end|endoftext|eot_id|start_header_id|user|assistant|system)\|>"
    r"|\[/?INST\]|<</?SYS>>|</?s>|<(?:start|end)_of_turn>|^### (?:Instruction|Response|Input):",
    re.MULTILINE,
)
HINTS: Final = ("<|", "INST]", "SYS>>", "<s>", "</s>", "_of_turn>", "### ")
"""One of them is in whatever MARKUP finds; looking for them is faster."""


def content_findings(record: Record) -> Iterator[Finding]:
    """Nine rows of ten have nothing that could be found: one look at all their text tells."""
    if not _suspicious(together(record.row)):
        return
    for column, text in texts(record.row):
        yield from _of_text(record, column, text)


def _suspicious(text: str) -> bool:
    """Whether a part of the text can have a finding. Only what is searched for without its surroundings is asked here."""
    outline = secrets.outlined(text)
    return (
        (not text.isascii() and _broken(text))
        or len(outline.translate(None, CONTROLS)) < len(outline)
        or any(hint in text for hint in HINTS)
        or secrets.possible(text, outline)
    )


def _broken(text: str) -> bool:
    return "\ufffd" in text or any(hint in text for hint in MOJIBAKE_HINTS) or SURROGATE.search(text) is not None


def _of_text(record: Record, column: str, text: str) -> Iterator[Finding]:
    if not text.isascii():
        yield from _characters(record, column, text)
    if control := CONTROL.search(text):
        message = f"holds the control character U+{ord(control[0]):04X}"
        yield of_row(WARNING, "encoding", record, message, column=column, sample=around(text, control), fix="remove it")
    if any(hint in text for hint in HINTS) and (markup := MARKUP.search(text)):
        message = (
            f"holds {markup[0]!r}: it was written for a chat template once, and the model's own is put around it again"
        )
        fix = "split it into messages, or give the text as it is: {text: ...}"
        sample = around(text, markup)
        yield of_row(WARNING, "template-markup", record, message, column=column, sample=sample, fix=fix)
    for check, what, shown in secrets.found(text):
        fix = "remove or replace it: a model can repeat what it was trained on"
        yield of_row(WARNING, check, record, f"holds what looks like {what}", column=column, sample=shown, fix=fix)


def _characters(record: Record, column: str, text: str) -> Iterator[Finding]:
    if half := SURROGATE.search(text):
        message = f"holds half a character (U+{ord(half[0]):04X}), which no tokenizer takes"
        fix = "write the whole character, or U+FFFD"
        yield of_row(ERROR, "encoding", record, message, column=column, sample=around(text, half), fix=fix)
    elif "\ufffd" in text:
        at = re.search("\ufffd", text)
        message = "holds U+FFFD, which stands where a character was lost"
        yield of_row(
            WARNING, "encoding", record, message, column=column, sample=around(text, at), fix="find the source"
        )
    elif mixed := MOJIBAKE.search(text):
        message = f"holds {mixed[0]!r}: UTF-8 that was read as another encoding"
        sample = around(text, mixed)
        yield of_row(WARNING, "encoding", record, message, column=column, sample=sample, fix="decode it as UTF-8")


def around(text: str, match: re.Match[str] | None) -> str:
    at = match.start() if match else 0
    return text[max(0, at - 30) : at + 60]
