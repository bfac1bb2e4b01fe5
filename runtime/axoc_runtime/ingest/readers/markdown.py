"""Markdown: one document a file, as it is written, without the front matter that static sites put before it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from axoc_runtime.ingest.base import Reader, Record, Source
from axoc_runtime.ingest.readers.documents import document

FRONT_MATTER: Final = re.compile(r"\A(---|\+\+\+)[ \t]*\n.*?\n\1[ \t]*(?:\n|\Z)", re.DOTALL)


class Markdown(Reader):
    name = "markdown"
    suffixes = (".md", ".markdown")

    def read(self, source: Source) -> Iterator[Record]:
        yield document(source, lambda text: FRONT_MATTER.sub("", text.replace("\r\n", "\n"), count=1))
