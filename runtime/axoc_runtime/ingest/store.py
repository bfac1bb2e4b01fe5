"""Prepared rows on disk: one Arrow stream, memory-mapped when it is read, and which of its rows are for what."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

ROWS: Final = "rows.arrow"
SPLIT: Final = "split.json"
BATCH_ROWS: Final = 512
LENGTH: Final = "length"
"""A column that every prepared row has: tokens of its longest sequence."""
KINDS: Final = {"tokens": pa.list_(pa.int32()), "flag": pa.bool_(), "text": pa.string()}


def write_rows(folder: Path, columns: Mapping[str, str], rows: Iterable[tuple[Mapping[str, Any], int]]) -> None:
    """(values by column, length) of each row, in order. ``columns``: name -> tokens, flag or text."""
    schema = pa.schema([*((name, KINDS[kind]) for name, kind in columns.items()), (LENGTH, pa.int32())])
    with pa.OSFile(str(folder / ROWS), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for batch in _batched(iter(rows)):
            values = [[row[name] for row, _ in batch] for name in columns]
            writer.write_batch(pa.record_batch([*values, [length for _, length in batch]], schema=schema))


def write_split(folder: Path, train: list[int], held_out: list[int], report: dict[str, Any]) -> None:
    value = {"train": train, "held_out": held_out, "report": report}
    (folder / SPLIT).write_text(json.dumps(value), encoding="utf-8")


def read_report(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / SPLIT).read_text(encoding="utf-8"))["report"]
    return report


def read_rows(folder: Path) -> tuple[Any, Any]:
    """(rows to train on, held-out rows or None) as memory-mapped datasets."""
    from datasets import Dataset

    split = json.loads((folder / SPLIT).read_text(encoding="utf-8"))
    rows = Dataset.from_file(str(folder / ROWS))
    held_out = rows.select(split["held_out"]) if split["held_out"] else None
    return rows.select(split["train"]), held_out


def _batched(rows: Iterator[Any]) -> Iterator[list[Any]]:
    while batch := list(islice(rows, BATCH_ROWS)):
        yield batch
