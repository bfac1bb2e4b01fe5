"""Lines of text with their places, of files of any size and whatever bytes they hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Final

from axoc_runtime.ingest.base import BadRow

LONGEST_LINE_BYTES: Final = 256 << 20
"""More than this without a line end is no file of lines, or a compressed bomb."""
BOM: Final = b"\xef\xbb\xbf"
WIDE: Final = (b"\xff\xfe", b"\xfe\xff")
SAMPLE: Final = 4096
"""Characters kept of a row that cannot be read."""


def lines(stream: BinaryIO, written: str) -> Iterator[tuple[int, int, bytes]]:
    """(line, counted from 1; bytes before it; its bytes with the line end). Raises BadRow for what is no UTF-8 text at all."""
    offset = number = 0
    while raw := stream.readline(LONGEST_LINE_BYTES):
        number += 1
        if len(raw) == LONGEST_LINE_BYTES and not raw.endswith(b"\n"):
            raise BadRow(f"{written}:{number}: a line of over {LONGEST_LINE_BYTES >> 20} MiB", check="malformed")
        if number == 1 and raw.startswith(WIDE):
            fix = "convert it: iconv -f UTF-16 -t UTF-8"
            raise BadRow(f"{written}: is UTF-16, expected UTF-8", check="encoding", fix=fix)
        start = len(BOM) if number == 1 and raw.startswith(BOM) else 0
        yield number, offset + start, raw[start:]
        offset += len(raw)


def decoded(raw: bytes) -> str:
    """Raises BadRow."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"not UTF-8 at byte {error.start} of the row: {raw[error.start : error.start + 1]!r}"
        raise BadRow(message, check="encoding", fix="convert it: iconv -f LATIN1 -t UTF-8") from None


def shown(raw: bytes) -> str:
    """What a row that cannot be read looks like."""
    return raw.decode("utf-8", "backslashreplace").rstrip("\r\n")[:SAMPLE]


def whole_text(stream: BinaryIO, written: str) -> str:
    """A document. Raises BadRow."""
    raw = stream.read(LONGEST_LINE_BYTES + 1)
    if len(raw) > LONGEST_LINE_BYTES:
        raise BadRow(f"{written}: a document of over {LONGEST_LINE_BYTES >> 20} MiB", check="malformed", fix="split it")
    return decoded(raw.removeprefix(BOM))
