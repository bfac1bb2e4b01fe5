"""What a trainer reads of the prepared folder: rows one by one, or packs of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from axoc_runtime.preparation import shards


class ArrayRows:
    """Some of the prepared rows, in an order of their own. ``rows[i]`` has a column's tokens as an int32 array, which is
    a slice of the memory map; ``length`` is a number. The first column is of tokens."""

    def __init__(self, paths: Sequence[Path], edges: Any, columns: Sequence[str], chosen: Any) -> None:
        """``edges``: where each shard's rows begin among all, and the last one's end; ``chosen``: numbers of rows."""
        self.paths, self.edges, self.columns, self.chosen = paths, [int(e) for e in edges], columns, chosen

    @property
    def column_names(self) -> list[str]:
        return [*self.columns, shards.LENGTH]

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> dict[str, Any]:
        number = int(self.chosen[index])
        shard = bisect_right(self.edges, number) - 1
        path, row = self.paths[shard], number - self.edges[shard]
        found = {name: shards.value_of(path, name, row) for name in self.columns}
        return found | {shards.LENGTH: len(found[self.columns[0]])}

    def lengths(self) -> Any:
        """int64, of every row."""
        return shards.numbers(self.paths, shards.LENGTH)[self.chosen].astype(np.int64)

    def sort(self, column: str, *, reverse: bool = False) -> ArrayRows:
        """By length, as a datasets.Dataset sorts."""
        if column != shards.LENGTH:
            raise KeyError(column)
        lengths = self.lengths()
        order = np.argsort(-lengths if reverse else lengths, kind="stable")
        return self.select(order)

    def select(self, indices: Any) -> ArrayRows:
        """Those at these indices, in their order, as a datasets.Dataset selects."""
        return ArrayRows(self.paths, self.edges, self.columns, self.chosen[np.asarray(indices, dtype=np.int64)])


class Packs:
    """Rows by packs: ``packs[i]`` is the list of one pack's rows."""

    column_names = ("documents",)

    def __init__(self, rows: ArrayRows, begins: Any, ends: Any) -> None:
        """``rows`` pack by pack: each from its begin to its end."""
        self.rows, self.begins, self.ends = rows, begins, ends

    def __len__(self) -> int:
        return len(self.begins)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"documents": [self.rows[i] for i in range(int(self.begins[index]), int(self.ends[index]))]}

    def select(self, indices: Any) -> Packs:
        chosen = np.asarray(indices, np.int64)
        return Packs(self.rows, self.begins[chosen], self.ends[chosen])
