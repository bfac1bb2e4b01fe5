"""Bytes to text: what is no readable text file is refused here, and says at which byte."""

from __future__ import annotations

import re
from typing import Final

from axoc.errors import Diagnostic, UserError

MAX_BYTES: Final = 256 << 10
"""Far above any spec; PyYAML would take minutes for a data file given by mistake."""
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")
_UNREADABLE: Final = re.compile("[^\\t\\n\\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What YAML forbids in its text."""


def decode(content: bytes, file: str) -> str:
    """The text of a spec. Raises UserError."""
    if len(content) > MAX_BYTES:
        message = f"{len(content):,} bytes are too many for a spec"
        raise UserError(
            Diagnostic(
                message=message, file=file, expected=f"at most {MAX_BYTES:,}", fix="see whether this is a data file"
            )
        )
    if content.startswith(_UTF16):
        raise UserError(Diagnostic(message="this file is UTF-16", file=file, expected="UTF-8", fix="save it as UTF-8"))
    if b"\0" in content:
        message = "this is a binary file: it holds a null byte"
        raise UserError(_at(content, content.index(b"\0"), file, message))
    text = _utf8(content, file)
    hidden = _UNREADABLE.search(text)
    if hidden:
        message = f"the character U+{ord(hidden.group()):04X} is not allowed in YAML"
        raise UserError(_at(text[: hidden.start()].encode(), hidden.start(), file, message, "remove it"))
    return text


def _utf8(content: bytes, file: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"byte 0x{content[error.start]:02x} is not UTF-8"
        raise UserError(_at(content, error.start, file, message)) from None


def _at(content: bytes, offset: int, file: str, message: str, fix: str = "save it as UTF-8 text") -> Diagnostic:
    before = content[:offset].decode("utf-8-sig", "replace")
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    return Diagnostic(message=message, file=file, line=line, column=column, expected="UTF-8 text", fix=fix)
