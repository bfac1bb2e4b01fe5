"""WARC, as web crawls are kept: the text of every HTML or plain-text page that was answered with success."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from typing import Any, Final

from axoc_runtime.ingest.base import BadRow, Reader, Record, Source
from axoc_runtime.ingest.readers.html import visible_text

HTML: Final = ("text/html", "application/xhtml+xml")
LARGEST_PAGE_BYTES: Final = 32 << 20


class Warc(Reader):
    """Rows have ``text``, ``url`` and ``date``. Texts already extracted (WET files) are taken as they are."""

    name = "warc"
    suffixes = (".warc", ".wet")

    def read(self, source: Source) -> Iterator[Record]:
        from warcio.archiveiterator import ArchiveIterator
        from warcio.exceptions import ArchiveLoadFailed

        logging.getLogger("warcio").setLevel(logging.ERROR)  # it tells of each space in an address
        number = 0
        try:
            with source.open() as stream:
                entries = ArchiveIterator(stream)
                for entry in entries:
                    kind = _kind(entry)
                    found = _record(source.written, number + 1, entry, kind) if kind else None
                    if wrong := _ends_wrong(entries, entry):
                        found = _record_of(source.written, number + 1, entry, {}, wrong)
                    if found is not None:
                        number += 1
                        yield found
        except (ArchiveLoadFailed, ValueError, AttributeError) as error:
            where = f" after page {number}" if number else ""
            first = (str(error).splitlines() or [type(error).__name__])[0]
            fix = "fetch the file again; what follows cannot be read"
            raise BadRow(f"{source.written}: not WARC{where}: {first}", check="malformed", fix=fix) from None


def _kind(entry: Any) -> str | None:
    """html or text; None for what is no page that was found."""
    if entry.rec_type == "conversion":
        return "text"
    if entry.rec_type != "response" or entry.http_headers is None or entry.http_headers.get_statuscode() != "200":
        return None
    content = (entry.http_headers.get_header("Content-Type") or "").partition(";")[0].strip().lower()
    return "html" if content in HTML else "text" if content == "text/plain" else None


def _ends_wrong(entries: Any, entry: Any) -> BadRow | None:
    """Where it does not end as its length says: what was read of it is not all, or too much. warcio goes on, and tells only
    standard error."""
    before = entries.err_count
    with contextlib.redirect_stderr(io.StringIO()):
        entries.read_to_end()
    missing = getattr(entry.raw_stream, "limit", 0)
    if not missing and entries.err_count == before:
        return None
    told = (
        f"the file ends, and {missing:,} bytes of it are missing" if missing else "it is longer than its Content-Length"
    )
    return BadRow(told, check="malformed", fix="fetch the file again, or remove the record")


def _record(written: str, number: int, entry: Any, kind: str) -> Record:
    headers = entry.rec_headers
    row = {"url": headers.get_header("WARC-Target-URI") or "", "date": headers.get_header("WARC-Date") or ""}
    try:
        return _record_of(written, number, entry, row | {"text": _text(entry, kind)}, None)
    except BadRow as error:
        return _record_of(written, number, entry, {}, error)


def _record_of(written: str, number: int, entry: Any, row: dict[str, Any], problem: BadRow | None) -> Record:
    url = (entry.rec_headers.get_header("WARC-Target-URI") if entry.rec_headers is not None else None) or ""
    return Record(place=f"{written}[{number - 1}]", row=row, file=written, number=number, problem=problem, raw=url)


def _text(entry: Any, kind: str) -> str:
    raw: bytes = entry.content_stream().read(LARGEST_PAGE_BYTES + 1)
    if len(raw) > LARGEST_PAGE_BYTES:
        raise BadRow(f"is larger than {LARGEST_PAGE_BYTES >> 20} MiB", "text", check="too-long", fix="cut it in pieces")
    declared = (entry.http_headers.get_header("Content-Type") or "") if entry.http_headers is not None else ""
    charset = declared.lower().partition("charset=")[2].partition(";")[0].strip(" \"'") or "utf-8"
    try:
        text = raw.decode(charset)
    except (UnicodeDecodeError, LookupError):
        raise BadRow(f"is not in the encoding it declares, {charset[:20]}", "text", check="encoding") from None
    return visible_text(text) if kind == "html" else text
