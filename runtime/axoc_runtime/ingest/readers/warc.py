"""WARC, as web crawls are kept: the text of every HTML or plain-text page that was answered with success."""

from __future__ import annotations

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

        number = 0
        try:
            with source.open() as stream:
                for entry in ArchiveIterator(stream):
                    kind = _kind(entry)
                    if kind:
                        number += 1
                        yield _record(source.written, number, entry, kind)
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


def _record(written: str, number: int, entry: Any, kind: str) -> Record:
    headers = entry.rec_headers
    url = headers.get_header("WARC-Target-URI") or ""
    row: dict[str, Any] = {"url": url, "date": headers.get_header("WARC-Date") or ""}
    problem = None
    try:
        row["text"] = _text(entry, kind)
    except BadRow as error:
        row, problem = {}, error
    return Record(place=f"{written}[{number - 1}]", row=row, file=written, number=number, problem=problem, raw=url)


def _text(entry: Any, kind: str) -> str:
    raw: bytes = entry.content_stream().read(LARGEST_PAGE_BYTES)
    declared = (entry.http_headers.get_header("Content-Type") or "") if entry.http_headers is not None else ""
    charset = declared.lower().partition("charset=")[2].partition(";")[0].strip(" \"'") or "utf-8"
    try:
        text = raw.decode(charset)
    except (UnicodeDecodeError, LookupError):
        raise BadRow(f"is not in the encoding it declares, {charset[:20]}", "text", check="encoding") from None
    return visible_text(text) if kind == "html" else text
