"""A dataset of the hub, by its id, through the datasets library."""

from __future__ import annotations

from collections.abc import Iterator

from axoc_runtime.ingest.base import BadRow, Reader, Record, Source
from axoc_runtime.ingest.readers.saved import rows_of


class Hub(Reader):
    """Options: ``split`` (default train), ``config``, ``revision``."""

    name = "hub"

    def read(self, source: Source) -> Iterator[Record]:
        import datasets

        options = source.options
        try:
            rows = datasets.load_dataset(
                source.written,
                options.get("config"),
                split=options.get("split", "train"),
                revision=options.get("revision"),
                streaming=source.streaming,
            )
            yield from rows_of(rows, source)
        except Exception as error:  # the library raises many kinds; all mean the same to a user
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise BadRow(f"{source.written}: neither a file here nor a dataset that can be reached: {first}") from None

    def fingerprint(self, source: Source) -> str:
        return f"{source.written}@{source.options.get('revision')}/{source.options.get('split')}"
