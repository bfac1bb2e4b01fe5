"""Records of a dataset as its schema takes them: of most schemas as they are read, of some several joined into one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final

from axoc_runtime.errors import EXIT_DATA, RuntimeFailure
from axoc_runtime.ingest.base import Pictured, Record, Schema, columns_of
from axoc_runtime.ingest.registry import named, schema_of
from axoc_runtime.job import DatasetJob

NO_IMAGES: Final = "this runtime trains models of text, and reads and checks images only"


def chosen_schema(dataset: DatasetJob) -> Schema | None:
    """The one that the spec names. Raises RuntimeFailure where there is none of that name."""
    chosen = named(dataset.type)
    return chosen if isinstance(chosen, Schema) else None


class Gathered(Iterator[Record]):
    """``schema`` is the one given, else that of the first record that holds anything; None until there was one.

    Raises RuntimeFailure where that record fits no schema, or one of images, and these are not accepted: reading all of them
    would only tell the same of each.
    """

    def __init__(self, records: Iterable[Record], schema: Schema | None, accepts: tuple[type, ...]) -> None:
        self.schema, self.accepts = schema, accepts
        self._records = self._gathered(iter(records))

    def __next__(self) -> Record:
        return next(self._records)

    def _gathered(self, records: Iterator[Record]) -> Iterator[Record]:
        for record in records:
            if self.schema is None and record.problem is None and columns_of(record.row):
                self.schema = schema_of(record.row, record.place, self.accepts)
            if self.schema is not None:
                self._of_texts(self.schema, record)
                yield from self.schema.gather(chain([record], records))
                return
            yield record

    def _of_texts(self, schema: Schema, record: Record) -> None:
        if schema.makes is Pictured and Pictured not in self.accepts:
            message = f"{record.place}: is in the format {schema.name}: {NO_IMAGES}"
            raise RuntimeFailure(
                message, EXIT_DATA, "take a dataset of text; axoc data check reads and checks this one"
            )
