"""Text and Markdown: one document a file."""

from __future__ import annotations

from collections.abc import Iterator

from axoc_runtime.ingest.base import Reader, Record, Source


class Text(Reader):
    name = "text"
    suffixes = (".txt", ".md")

    def read(self, source: Source) -> Iterator[Record]:
        yield Record(place=source.written, row={"text": source.path.read_text(encoding="utf-8-sig")})
