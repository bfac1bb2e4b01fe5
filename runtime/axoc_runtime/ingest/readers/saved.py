"""A folder that the datasets library saved with ``save_to_disk``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from axoc_runtime.ingest.base import BadRow, Reader, Record, Source

BATCH_ROWS: Final = 256
MARKS: Final = ("state.json", "dataset_dict.json")
"""Files that only such a folder has."""


class Saved(Reader):
    """Options: ``split`` (default train), where the folder has several."""

    name = "saved"

    def read(self, source: Source) -> Iterator[Record]:
        yield from rows_of(self._rows(source), source)

    def fingerprint(self, source: Source) -> str:
        """The library names each state of a data set by a fingerprint of its own."""
        parts = sorted(source.path.rglob("state.json"))
        return "".join(p.read_text(encoding="utf-8", errors="replace") for p in parts)

    @staticmethod
    def _rows(source: Source) -> Any:
        import datasets

        split = source.options.get("split", "train")
        try:
            found = datasets.load_from_disk(str(source.path))
        except Exception as error:  # the library raises many kinds; all mean the same to a user
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise BadRow(f"{source.written}: cannot be loaded: {first}", check="malformed") from None
        if not isinstance(found, dict):
            return found
        if split not in found:
            fix = f"set dataset.options: {{split: {next(iter(found), 'train')}}}"
            raise BadRow(f"{source.written}: has no split {split}, but {', '.join(found)}", check="malformed", fix=fix)
        return found[split]


def rows_of(dataset: Any, source: Source) -> Iterator[Record]:
    """Of the datasets library, as they are stored: images stay bytes, and nothing is decoded."""
    number = 0
    for batch in dataset.with_format("arrow").iter(batch_size=BATCH_ROWS):
        for row in batch.to_pylist():
            number += 1
            yield Record(place=f"{source.written}[{number - 1}]", row=row, file=source.written, number=number)


def is_saved(folder: Path) -> bool:
    return any((folder / name).is_file() for name in MARKS)
