"""What a run counts on of every format, as tests to inherit: a plugin names its class, and rows that are good and bad."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from axoc_runtime.ingest.base import BadRow, Example, Reader, Record, Schema, Source
from axoc_runtime.ingest.encode import Text, encode
from axoc_runtime.ingest.registry import formats, schema_of

HOSTILE: Final[tuple[Any, ...]] = (
    *(None, "", " ", "\ud800", 7, 2.5, True),
    *([], {}, [None], [{}], {"a": 1}, ["x"], [["x"]]),
)
"""What may stand in any column of any file."""


class SchemaConformance:
    """Inherit it in a class whose name begins with Test."""

    schema: ClassVar[type[Schema]]
    good: ClassVar[Sequence[Mapping[str, Any]]]
    """Rows as they would stand in a file; at least one has all columns, ``optional`` ones too."""
    bad: ClassVar[Sequence[tuple[Mapping[str, Any], str]]]
    """Rows that cannot be used, each with the column that is at fault."""

    def test_it_is_found_by_its_entry_point(self) -> None:
        found = formats().get(self.schema.name)
        assert isinstance(found, self.schema), (
            f"no entry point of axoc_runtime.dataset_formats named {self.schema.name}"
        )

    def test_its_columns_are_all_taught(self) -> None:
        assert self.good and self.bad, "name rows that are good, and rows that are bad"
        taught = {column for row in self.good for column in row}
        missing = {*self.schema.columns, *self.schema.optional} - taught
        assert not missing, f"no good row has the columns {sorted(missing)}"

    def test_good_rows_are_recognized(self) -> None:
        made = self.schema.makes
        for row in self.good:
            kinds = (made,) if made is not None else (type(self.convert(row)),)
            assert isinstance(schema_of(row, "row", kinds), self.schema)

    def test_good_rows_convert_alike_every_time_and_stay_as_they_are(self) -> None:
        for row in self.good:
            before = copy.deepcopy(dict(row))
            first = self.convert(row)
            assert self.schema.makes is None or isinstance(first, self.schema.makes)
            assert self.convert(json.loads(json.dumps(row))) == first
            assert dict(row) == before, "convert changed the row"

    def test_good_rows_are_trained_on(self, axoc_tokenizer: Any) -> None:
        for row in self.good:
            example = self.convert(row)
            if isinstance(example, Text):
                assert any(
                    label >= 0 for made in encode(axoc_tokenizer, example, limit=1 << 20) for label in made.labels
                )

    def test_bad_rows_name_their_column(self) -> None:
        for row, column in self.bad:
            error = self.refusal(row)
            assert error is not None, f"taken, and should not be: {row}"
            assert (error.column or "").startswith(column), f"{row}: {error.column} {error}"
            assert str(error), "says nothing"

    def test_whatever_stands_in_a_column_is_an_example_or_a_bad_row(self) -> None:
        """Nothing else is raised: a run would show a traceback."""
        for row in self.good:
            for column in row:
                for value in HOSTILE:
                    self.refusal({**row, column: value})

    def convert(self, row: Mapping[str, Any]) -> Example:
        return self.schema().convert(row)

    def refusal(self, row: Mapping[str, Any]) -> BadRow | None:
        try:
            self.convert(row)
        except BadRow as error:
            return error
        return None


class ReaderConformance:
    """Inherit it in a class whose name begins with Test."""

    reader: ClassVar[type[Reader]]

    def source(self, folder: Path) -> Source:
        """Something to read; ``folder`` is empty."""
        raise NotImplementedError

    def test_it_is_found_by_its_entry_point(self) -> None:
        found = formats().get(self.reader.name)
        assert isinstance(found, self.reader), (
            f"no entry point of axoc_runtime.dataset_formats named {self.reader.name}"
        )

    def test_something_leads_to_it(self) -> None:
        assert self.reader.suffixes or self.reader.scheme, "neither an ending of files nor a scheme"
        assert all(s.startswith(".") and s == s.lower() for s in self.reader.suffixes)

    def test_it_reads_the_same_rows_every_time(self, tmp_path: Path) -> None:
        source = self.source(tmp_path)
        first, again = (list(self.reader().read(source)) for _ in range(2))
        assert first and [self.plain(r) for r in first] == [self.plain(r) for r in again]

    def test_every_row_has_a_place_of_its_own(self, tmp_path: Path) -> None:
        places = [record.place for record in self.reader().read(self.source(tmp_path))]
        assert all(places) and len(places) == len(set(places))

    def test_it_does_not_read_ahead(self, tmp_path: Path) -> None:
        """Files may be larger than memory."""
        assert isinstance(self.reader().read(self.source(tmp_path)), Iterator)

    def test_its_fingerprint_stays(self, tmp_path: Path) -> None:
        source = self.source(tmp_path)
        assert self.reader().fingerprint(source) == self.reader().fingerprint(source) != ""

    @staticmethod
    def plain(record: Record) -> tuple[str, str]:
        return record.place, json.dumps(record.row, sort_keys=True, default=str)
