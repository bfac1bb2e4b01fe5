"""Bytes that may be anything, as files of every format, and what is allowed to come of them."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, cast, get_args

from axoc_runtime.errors import RuntimeFailure
from axoc_runtime.ingest.base import BadRow, Example, Pictured, Preference, Reader, Record, Schema, Source
from axoc_runtime.ingest.checks.facts import fact_of
from axoc_runtime.ingest.encode import Text, encode
from axoc_runtime.ingest.examine import Wanted, examine
from axoc_runtime.ingest.opening import _decompressed
from axoc_runtime.ingest.pictured import _opened, marked
from axoc_runtime.ingest.registry import formats, readers
from axoc_runtime.ingest.sources import records_of
from axoc_runtime.objectives.language import preferred
from axoc_runtime.testing.fixtures import EVERY_KIND

from runtime.conftest import make_tokenizer
from runtime.test_formats import DATASET
from runtime.test_readers import WAYS, warc

WANTED = Wanted(objective="any", accepts=EVERY_KIND, wants="anything")
MOST_ROWS = 50


@dataclass(frozen=True, kw_only=True)
class InMemory(Source):
    content: bytes = b""

    def open(self) -> BinaryIO:
        return _decompressed(io.BytesIO(self.content), self.written)

    @contextlib.contextmanager
    def seekable(self) -> Iterator[BinaryIO]:
        with self.open() as stream:
            yield cast(BinaryIO, io.BytesIO(stream.read()))


def endings() -> list[str]:
    """Of all formats that read a file's bytes, plain and compressed."""
    plain = [s for r in readers() if type(r).__module__.startswith("axoc_runtime") for s in r.suffixes[:1]]
    plain = [s for s in plain if s not in (".db",)]
    return [*plain, *(f"{s}{c}" for s in (".jsonl", ".csv", ".json") for c in (".gz", ".bz2", ".xz", ".zst"))]


def seeds() -> dict[str, bytes]:
    """A sound file of each ending, for fuzzers to begin with."""
    found = {f".{name.partition('.')[2]}": content for name, content in WAYS.items()}
    found |= {".warc": gzip.decompress(warc()), ".html": b"<p>a<table><tr><td>b</table>", ".md": b"---\nx\n---\n# a"}
    found |= {".txt": b"text", ".json.gz": gzip.compress(b'[{"a": 1}]'), ".json.xz": lzma.compress(b"[1]")}
    return found | {".csv.bz2": bz2.compress(b"a,b\n1,2\n"), ".jsonl": b'{"a": [1, {"b": null}]}\n'}


def read(ending: str, content: bytes) -> list[Record]:
    """The rows, at most some. A file that cannot be read may only end in RuntimeFailure: anything else is a finding."""
    (reader,) = [r for r in readers() if f".{ending.split('.')[1]}" in r.suffixes]
    assert isinstance(reader, Reader)
    written = f"fuzz{ending}"
    found: list[Record] = []
    with contextlib.suppress(RuntimeFailure):
        for record in records_of((reader, InMemory(written=written, path=Path(written), content=content))):
            assert record.place and (record.problem is None or record.row == {})
            found.append(record)
            if len(found) == MOST_ROWS:
                break
    return found


def examined(record: Record) -> None:
    """By every schema: each uses the row or says why not, and raises nothing."""
    for schema in formats().values():
        if isinstance(schema, Schema):
            schema.recognizes(record.row)
            found = examine(record, schema, DATASET, WANTED)
            assert found.example is not None or found.findings
            if found.example is not None:
                used(record, found.example)


def used(record: Record, example: Example) -> None:
    """As rows are made of it: only BadRow may come."""
    fact_of(record, example, 42)
    with contextlib.suppress(BadRow):
        if isinstance(example, Pictured):
            marked(example)
            for index, image in enumerate(example.images):
                _opened(image, Path(), index)
        elif isinstance(example, Preference):
            encode(tokenizer(), preferred(example), limit=64)
        elif isinstance(example, get_args(Text)):
            encode(tokenizer(), cast(Text, example), limit=64)


@cache
def tokenizer() -> Any:
    return make_tokenizer()


def one(ending: str, content: bytes) -> None:
    together(read(ending, content))


def together(records: list[Record]) -> None:
    """One by one, and as the schemas that join records have them."""
    for record in records:
        examined(record)
    for schema in formats().values():
        if isinstance(schema, Schema) and type(schema).gather is not Schema.gather:
            for record in schema.gather(records):
                found = examine(record, schema, DATASET, WANTED)
                assert found.example is not None or found.findings
                if found.example is not None:
                    used(record, found.example)


def as_record(row: Any) -> Record:
    return Record(place="fuzz:1", row=row, file="fuzz", number=1, offset=0)
