"""A JSON list of any length, an element at a time, with the place of each."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

from axoc_runtime.ingest.base import BadRow
from axoc_runtime.ingest.readers.lines import BOM

CHUNK_BYTES: Final = 1 << 20
LONGEST_ELEMENT: Final = 64 << 20
"""Characters looked at before an element is said to be broken."""
SPACE: Final = " \t\r\n"
AFTER_A_NUMBER: Final = (*SPACE, ",", "]")
"""Anything else, and the end of what was read so far, may be a part of it."""


class _Window:
    """The text around where one is reading. ``offset``: bytes before it in the file."""

    def __init__(self, stream: BinaryIO, written: str) -> None:
        self.stream, self.written = stream, written
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.text, self.at, self.offset, self.read_bytes, self.ended = "", 0, 0, 0, False

    def more(self) -> bool:
        """Reads on, at least as much as is there already. False at the end of the file."""
        if self.ended:
            return False
        raw = self.stream.read(max(CHUNK_BYTES, len(self.text) - self.at))
        self.ended = not raw
        try:
            added = self.decoder.decode(raw, final=self.ended)
        except UnicodeDecodeError as error:
            message = f"{self.written}: not UTF-8 at byte {self.read_bytes + error.start}"
            raise BadRow(message, check="encoding", fix="convert it: iconv -f LATIN1 -t UTF-8") from None
        self.read_bytes += len(raw)
        self.text = self.text[self.at :] + added
        self.at = 0
        return not self.ended

    def move(self, to: int) -> None:
        self.offset += len(self.text[self.at : to].encode("utf-8", "surrogatepass"))
        self.at = to

    def next_character(self) -> str:
        """After white space; empty at the end of the file."""
        while True:
            end = self.at
            while end < len(self.text) and self.text[end] in SPACE:
                end += 1
            self.move(end)
            if end < len(self.text):
                return self.text[end]
            if not self.more() and self.at >= len(self.text):
                return ""

    def value(self) -> Any:
        """The JSON value that begins here."""
        decoder = json.JSONDecoder()
        while True:
            try:
                value, end = decoder.raw_decode(self.text, self.at)
                if self.ended or not isinstance(value, int | float) or self.text[end : end + 1] in AFTER_A_NUMBER:
                    self.move(end)
                    return value
                self.more()
            except RecursionError:
                raise self.broken("nested too deeply") from None
            except ValueError as error:
                if len(self.text) - self.at > LONGEST_ELEMENT or not self.more():
                    raise self.broken(str(error).split(":")[0]) from None

    def broken(self, why: str) -> BadRow:
        return BadRow(
            f"{self.written}: not JSON: {why} in the element at byte {self.offset}; what follows cannot be read",
            check="malformed",
            fix="repair the file; JSON Lines (an object a line) would lose only the broken row",
        )


def elements(stream: BinaryIO, written: str) -> Iterator[tuple[int, Any]]:
    """(bytes before it, value) of every element. Raises BadRow where the list is broken."""
    window = _Window(stream, written)
    window.more()
    if window.text.startswith(BOM.decode()):
        window.move(1)
    if window.next_character() != "[":
        raise window.broken("no list")
    window.move(window.at + 1)
    if window.next_character() != "]":
        while True:
            window.next_character()
            start = window.offset
            yield start, window.value()
            if window.next_character() != ",":
                break
            window.move(window.at + 1)
    if window.next_character() != "]":
        raise window.broken("expected a comma or the list's end")
    window.move(window.at + 1)
    if window.next_character():
        raise window.broken("something follows the list")
