"""Text: one document a file."""

from __future__ import annotations

from collections.abc import Iterator

from axoc_runtime.ingest.base import Reader, Record, Source
from axoc_runtime.ingest.readers.documents import document


class Text(Reader):
    name = "text"
    suffixes = (".txt",)

    def read(self, source: Source) -> Iterator[Record]:
        yield document(source, lambda text: text)
