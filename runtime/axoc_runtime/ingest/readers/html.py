"""HTML: the text that a reader of the page sees, one document a file."""

from __future__ import annotations

from collections.abc import Iterator

from axoc_runtime.ingest.base import BadRow, Reader, Record, Source
from axoc_runtime.ingest.readers.documents import document


def visible_text(markup: str) -> str:
    """Without scripts, styles and tags; blocks and tables keep their lines. Raises BadRow."""
    from inscriptis import get_text
    from inscriptis.css_profiles import CSS_PROFILES
    from inscriptis.model.config import ParserConfig

    if not markup.strip():
        return ""
    try:
        return str(get_text(markup, ParserConfig(css=CSS_PROFILES["strict"]))).strip()
    except Exception as error:  # lxml and the renderer raise many kinds on markup that is none
        raise BadRow(f"not HTML: {type(error).__name__}: {str(error)[:80]}", check="malformed") from None


class Html(Reader):
    name = "html"
    suffixes = (".html", ".htm", ".xhtml")

    def read(self, source: Source) -> Iterator[Record]:
        yield document(source, visible_text)
