"""A file that is one document."""

from __future__ import annotations

from collections.abc import Callable

from axoc_runtime.ingest.base import BadRow, Record, Source
from axoc_runtime.ingest.readers.lines import whole_text


def document(source: Source, text_of: Callable[[str], str]) -> Record:
    """The file as a row with the column ``text``; one that cannot be read says why."""
    written = source.written
    try:
        with source.open() as stream:
            row, problem = {"text": text_of(whole_text(stream, written))}, None
    except BadRow as error:
        row, problem = {}, error
    return Record(place=written, row=row, file=written, number=1, offset=0, problem=problem)
