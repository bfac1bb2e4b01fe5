"""Parquet, and Arrow's own files: Feather, IPC files and streams. Read a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO, Final

from axoc_runtime.ingest.base import BadRow, Reader, Record, Source

BATCH_ROWS: Final = 256
MAGIC: Final = b"ARROW1"
"""What an IPC file begins with; a stream does not."""


def batches_to_records(batches: Iterator[Any], source: Source, kind: str) -> Iterator[Record]:
    """Raises BadRow with the row where the file is damaged."""
    import pyarrow as pa

    number = 0
    try:
        for batch in batches:
            batch.validate(full=True)  # Arrow believes what a file says of its offsets, and would read beyond its end
            for row in batch.to_pylist():
                place = f"{source.written}[{number}]"
                number += 1
                yield Record(place=place, row=row, file=source.written, number=number)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        where = f" after row {number}" if number else ""
        fix = "write the file again; what follows cannot be read"
        raise BadRow(f"{source.written}: not {kind}{where}: {first}", check="malformed", fix=fix) from None


class Parquet(Reader):
    name = "parquet"
    suffixes = (".parquet",)

    def read(self, source: Source) -> Iterator[Record]:
        with source.seekable() as stream:
            yield from batches_to_records(self._batches(stream), source, "Parquet")

    @staticmethod
    def _batches(stream: BinaryIO) -> Iterator[Any]:
        import pyarrow.parquet as pq

        yield from pq.ParquetFile(stream).iter_batches(batch_size=BATCH_ROWS)


class Arrow(Reader):
    name = "arrow"
    suffixes = (".arrow", ".feather", ".ipc")

    def read(self, source: Source) -> Iterator[Record]:
        with source.seekable() as stream:
            yield from batches_to_records(self._batches(stream), source, "Arrow")

    @staticmethod
    def _batches(stream: BinaryIO) -> Iterator[Any]:
        import pyarrow as pa

        begins = stream.read(len(MAGIC))
        stream.seek(0)
        if begins != MAGIC:
            yield from pa.ipc.open_stream(stream)
            return
        file = pa.ipc.open_file(stream)
        for index in range(file.num_record_batches):
            yield file.get_batch(index)
