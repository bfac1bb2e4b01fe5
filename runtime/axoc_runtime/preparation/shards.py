"""Prepared rows on disk: Arrow files of some thousands of rows each, memory-mapped when they are read.

A file is written beside and then renamed, so one that is there is whole: preparing again goes on behind the last of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

LENGTH: Final = "length"
"""A column that every prepared row has: tokens of its longest sequence."""
KEY: Final = "key"
"""And this one: the number of the row's content, by which it is held out or not."""
IMAGE: Final = pa.struct([("path", pa.string()), ("bytes", pa.large_binary())])
KINDS: Final = {
    "tokens": pa.list_(pa.int32()),
    "flag": pa.bool_(),
    "text": pa.large_string(),
    "images": pa.list_(IMAGE),
}
TOLD: Final = b"axoc"
READ: Final = pa.ipc.IpcReadOptions(use_threads=False)
WRITTEN: Final = pa.ipc.IpcWriteOptions(use_threads=False)
"""Processes that are forked have no use for threads of Arrow's."""
OPEN_SHARDS: Final = 8192
"""Maps held at once; a process may have some 65,000 in all."""


def path_of(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:06d}.arrow"


def write_shard(
    path: Path, columns: Mapping[str, str], rows: Sequence[Any], keys: Sequence[int], told: Mapping[str, Any]
) -> None:
    """``rows`` with ``columns`` and ``length``; ``columns``: name -> a name of KINDS; ``told``: JSON about them."""
    fields = [pa.field(name, KINDS[kind]) for name, kind in columns.items()]
    schema = pa.schema([*fields, (LENGTH, pa.int32()), (KEY, pa.int64())], metadata={TOLD: json.dumps(told)})
    values = [_column(kind, [row.columns[name] for row in rows]) for name, kind in columns.items()]
    values += [pa.array([row.length for row in rows], pa.int32()), pa.array(keys, pa.int64())]
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("wb") as raw:
        with pa.ipc.new_stream(raw, schema, options=WRITTEN) as writer:
            writer.write_batch(pa.record_batch(values, schema=schema))
        raw.flush()
        os.fsync(raw.fileno())  # before it has its name: after a power cut, too, what has the name is whole
    beside.replace(path)


def _column(kind: str, values: list[Any]) -> pa.Array:
    if kind != "tokens":
        return pa.array(values, KINDS[kind])
    edges = np.cumsum([0, *map(len, values)], dtype=np.int32)
    flat = np.fromiter(chain.from_iterable(values), np.int32, int(edges[-1]))
    return pa.ListArray.from_arrays(pa.array(edges), pa.array(flat))


def told_of(path: Path) -> dict[str, Any]:
    with pa.memory_map(str(path)) as source:
        found: dict[str, Any] = json.loads(pa.ipc.open_stream(source, options=READ).schema.metadata[TOLD])
    return found


def numbers(paths: Sequence[Path], column: str) -> Any:
    """A column of numbers over all shards, in memory."""
    empty = [np.empty(0, np.int64)]
    return np.concatenate([*empty, *(batch_of(path).column(column).to_numpy() for path in paths)])


@lru_cache(maxsize=OPEN_SHARDS)
def batch_of(path: Path) -> pa.RecordBatch:
    """All rows of a shard; nothing is read until it is looked at."""
    return pa.ipc.open_stream(pa.memory_map(str(path)), options=READ).read_next_batch()


@lru_cache(maxsize=2 * OPEN_SHARDS)
def _slices(path: Path, column: str) -> tuple[Any, Any]:
    """(values, where each row's begin among them) of a column of tokens, without a copy."""
    found = batch_of(path).column(column)
    return found.values.to_numpy(), found.offsets.to_numpy()


def value_of(path: Path, column: str, row: int) -> Any:
    """Tokens as ``tokens_of`` gives them; of other kinds a copy."""
    if batch_of(path).schema.field(column).type == KINDS["tokens"]:
        return tokens_of(path, column, row)
    return batch_of(path).column(column)[row].as_py()


def tokens_of(path: Path, column: str, row: int) -> Any:
    """int32, a view of the memory map."""
    values, edges = _slices(path, column)
    return values[edges[row] : edges[row + 1]]
