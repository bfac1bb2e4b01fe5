"""Records of a dataset as its schema takes them: of most schemas as they are read, of some several joined into one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final

from axoc_runtime.errors import EXIT_DATA, RuntimeFailure
from axoc_runtime.ingest.base import Pictured, Record, Schema, columns_of
from axoc_runtime.ingest.registry import NoFormat, named, schema_of
from axoc_runtime.job import DatasetJob

STRANGE: Final = 64
"""Records that fit no format are held, and looked beyond, before it is said that there is none."""
NO_IMAGES: Final = "its rows have images, and this job is one of text"

MADE_OF_TEXT: Final = (
    "set dataset.type: vision_chat or vision_qa, with a model that sees, and plan again; or take rows of text"
)


def chosen_schema(dataset: DatasetJob) -> Schema | None:
    """The one that the spec names. Raises RuntimeFailure where there is none of that name."""
    chosen = named(dataset.type)
    return chosen if isinstance(chosen, Schema) else None


class Gathered(Iterator[Record]):
    """``schema`` is the one given, else that of the first record that fits any; None until there was one. Records before
    it are that schema's too: they are strange to it, and told of.

    Raises RuntimeFailure where the first records fit no schema, or one fits several, or one of images, and these are not
    accepted: reading all of them would only tell the same of each.
    """

    def __init__(self, records: Iterable[Record], schema: Schema | None, accepts: tuple[type, ...]) -> None:
        self.schema, self.accepts = schema, accepts
        self._records = self._gathered(iter(records))

    def __next__(self) -> Record:
        return next(self._records)

    def _gathered(self, records: Iterator[Record]) -> Iterator[Record]:
        strange: list[Record] = []
        reason: NoFormat | None = None
        for record in records:
            try:
                self._choose(record)
            except NoFormat as failure:
                reason = reason or failure
            if self.schema is not None:
                self._of_texts(self.schema, record)
                yield from self.schema.gather(chain(strange, [record], records))
                return
            if reason is None:
                yield record
                continue
            strange.append(record)
            if len(strange) >= STRANGE:
                raise reason
        if reason is not None:
            raise reason

    def _choose(self, record: Record) -> None:
        if self.schema is None and record.problem is None and columns_of(record.row):
            self.schema = schema_of(record.row, record.place, self.accepts)

    def _of_texts(self, schema: Schema, record: Record) -> None:
        if schema.makes is Pictured and Pictured not in self.accepts:
            message = f"{record.place}: is in the format {schema.name}: {NO_IMAGES}"
            raise RuntimeFailure(message, EXIT_DATA, MADE_OF_TEXT)
