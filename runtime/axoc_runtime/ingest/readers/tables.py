"""CSV and TSV with a header, Parquet and Arrow."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from axoc_runtime.ingest.base import BadRow, Reader, Record, Source

csv.field_size_limit(1 << 30)


class Csv(Reader):
    name = "csv"
    suffixes = (".csv",)
    delimiter = ","

    def read(self, source: Source) -> Iterator[Record]:
        with source.path.open(encoding="utf-8-sig", newline="") as stream:
            lines = csv.DictReader(stream, delimiter=self.delimiter, strict=True)
            try:
                for row in lines:
                    place = f"{source.written}:{lines.line_num}"
                    if None in row:
                        raise BadRow(f"{place}: more fields than the header has")
                    yield Record(place=place, row=row)
            except csv.Error as error:
                raise BadRow(f"{source.written}:{lines.line_num + 1}: not CSV: {error}") from None


class Tsv(Csv):
    name = "tsv"
    suffixes = (".tsv",)
    delimiter = "\t"


class Parquet(Reader):
    name = "parquet"
    suffixes = (".parquet",)

    def read(self, source: Source) -> Iterator[Record]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            batches = pq.ParquetFile(source.path).iter_batches(batch_size=1024)
            number = 0
            for batch in batches:
                for row in batch.to_pylist():
                    yield Record(place=f"{source.written}[{number}]", row=row)
                    number += 1
        except pa.ArrowInvalid as error:
            raise BadRow(f"{source.written}: not Parquet: {error}") from None
