"""A JSON list of any length, an element at a time, with the place of each. An element that is broken hides no other."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

from axoc_runtime.ingest.base import BadRow
from axoc_runtime.ingest.readers.lines import BOM, SAMPLE

CHUNK_BYTES: Final = 1 << 20
LONGEST_ELEMENT: Final = 64 << 20
"""Characters looked at before an element is said to be broken."""
LONGEST_LITERAL: Final = len(r"\ud83d\ude00")
"""An error so near to the end of what was read so far may be of a literal that goes on."""
SPACE: Final = " \t\r\n"
AFTER_A_NUMBER: Final = (*SPACE, ",", "]")
"""Anything else, and the end of what was read so far, may be a part of it."""
OPENING: Final = re.compile(r'\{\s{0,200}"[^"\\]{1,200}"\s{0,9}:')
"""Of an object, to the end of its first name. Inside a string its quotes would be escaped."""
MOST_OPENINGS: Final = 16
UNDECODED: Final = re.compile("[\udc80-\udcff]")
"""Bytes that are no UTF-8, as surrogateescape has them."""


class Damaged(BadRow):
    """An element that cannot be read; ``raw`` is how it begins."""

    raw = ""


class _Window:
    """The text around where one is reading. ``offset``: bytes before it in the file."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self.text, self.at, self.offset, self.ended = "", 0, 0, False

    def more(self) -> bool:
        """Reads on, at least as much as is there already. False at the end of the file."""
        if self.ended:
            return False
        raw = self.stream.read(max(CHUNK_BYTES, len(self.text) - self.at))
        self.ended = not raw
        self.text = self.text[self.at :] + self.decoder.decode(raw, final=self.ended)
        self.at = 0
        return not self.ended

    def move(self, size: int) -> None:
        passed = self.text[self.at : self.at + size]
        self.offset += len(passed) if passed.isascii() else len(passed.encode("utf-8", "surrogateescape"))
        self.at += size

    def after(self, size: int) -> tuple[str, int]:
        """(the first character that is no white space, ``size`` characters on; how far it is). Empty at the end of the file."""
        while True:
            end = self.at + size
            while end < len(self.text) and self.text[end] in SPACE:
                end += 1
            size = end - self.at
            if end < len(self.text):
                return self.text[end], size
            if not self.more() and self.at + size >= len(self.text):
                return "", size

    def value(self) -> tuple[Any, int]:
        """(the JSON value that begins here, its characters). Raises ValueError."""
        decoder = json.JSONDecoder()
        while True:
            try:
                value, end = decoder.raw_decode(self.text, self.at)
                if self.ended or not isinstance(value, int | float) or self.text[end : end + 1] in AFTER_A_NUMBER:
                    return value, end - self.at
                self.more()
            except RecursionError:
                raise ValueError("nested too deeply") from None
            except json.JSONDecodeError as error:
                goes_on = error.msg.startswith("Unterminated") or error.pos + LONGEST_LITERAL >= len(self.text)
                if not goes_on or len(self.text) - self.at > LONGEST_ELEMENT or not self.more():
                    raise ValueError(error.msg.removesuffix(" at")) from None

    def skip_to(self, openings: set[str]) -> bool:
        """To where the next element begins as others do, in a list of its own perhaps. False where none does."""
        self.move(1)
        known, longest = re.compile(r"\[?(?:" + "|".join(map(re.escape, openings)) + ")"), 1 + max(map(len, openings))
        while (found := known.search(self.text, self.at)) is None:
            self.move(max(0, len(self.text) - self.at - longest))
            if not self.more() and known.search(self.text, self.at) is None:
                self.move(len(self.text) - self.at)
                return False
        self.move(found.start() - self.at)
        return True


def elements(stream: BinaryIO, written: str) -> Iterator[tuple[int, Any]]:
    """(bytes before it, value) of every element; the value is a Damaged where it cannot be read. Reading goes on where
    an element begins as one before it did. Raises BadRow where none is found, and what is passed over is more than one element."""
    window = _Window(stream)
    window.more()
    if window.text.startswith(BOM.decode()):
        window.move(1)
    first, distance = window.after(0)
    if first != "[":
        raise _broken(written, window, "no list")
    window.move(distance + 1)
    if window.after(0)[0] == "]" and not window.after(window.after(0)[1] + 1)[0]:
        return
    openings: set[str] = set()
    follows, longest = ",", 0
    while follows == ",":
        window.move(window.after(0)[1])
        start = window.offset
        try:
            value, size, follows = _element(window)
        except ValueError as error:
            openings = openings or _opening(window)
            if not openings:
                raise _broken(written, window, str(error)) from None
            damaged = _damaged(window, str(error))
            follows = "," if window.skip_to(openings) else ""
            if not follows and window.offset - start > longest:  # there may be others in it
                raise _broken(written, window, str(error), start) from None
            yield start, damaged
            continue
        if len(openings) < MOST_OPENINGS:
            openings |= _opening(window)
        yield start, _decoded(window, value, size)
        window.move(size + (follows == ","))
        longest = max(longest, window.offset - start)


def _opening(window: _Window) -> set[str]:
    """How the element begins; empty where not as an object does."""
    found = OPENING.match(window.text, window.at)
    return set() if found is None else {found[0]}


def _element(window: _Window) -> tuple[Any, int, str]:
    """(value, characters to the end of it and of the space behind, what follows). Raises ValueError."""
    value, size = window.value()
    follows, size = window.after(size)
    if follows not in (",", "]"):
        raise ValueError("expected a comma or the list's end after it")
    if follows == "]" and window.after(size + 1)[0]:
        raise ValueError("something follows the list")
    return value, size, follows


def _decoded(window: _Window, value: Any, size: int) -> Any:
    text = window.text[window.at : window.at + size]
    wrong = None if text.isascii() else UNDECODED.search(text)
    if wrong is None:
        return value
    before = len(text[: wrong.start()].encode("utf-8", "surrogateescape"))
    message = f"not UTF-8 at byte {before} of the row: {wrong[0].encode('utf-8', 'surrogateescape')!r}"
    return _shown(window, Damaged(message, check="encoding", fix="convert it: iconv -f LATIN1 -t UTF-8"))


def _damaged(window: _Window, why: str) -> Damaged:
    return _shown(window, Damaged(f"not JSON: {why}", check="malformed", fix="repair or remove the row"))


def _shown(window: _Window, found: Damaged) -> Damaged:
    raw = window.text[window.at : window.at + SAMPLE].encode("utf-8", "surrogateescape")
    found.raw = raw.decode("utf-8", "backslashreplace")
    return found


def _broken(written: str, window: _Window, why: str, at: int | None = None) -> BadRow:
    return BadRow(
        f"{written}: not JSON: {why}, in the element at byte {window.offset if at is None else at}; what follows cannot be read",
        check="malformed",
        fix="repair the file; JSON Lines (an object a line) would lose only the broken row",
    )
