"""Which rows are held out. By a digest of each row, so that neither a library's version nor the rows' order decides."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Longs = NDArray[np.int64]
CANONICAL: Final = json.JSONEncoder(sort_keys=True, ensure_ascii=False, default=str)


def row_key(row: Mapping[str, Any], seed: int) -> int:
    """A number that depends on the row and the seed alone; the same rows have the same."""
    text = CANONICAL.encode(row)
    return int.from_bytes(hashlib.sha256(f"{seed}\n{text}".encode("utf-8", "surrogatepass")).digest()[:7], "big")


def held_out_keys(keys: Any, share: float) -> Longs:
    """Keys to hold out, in order: the smallest, as many as make up ``share`` of the rows, and at least one.

    Equal rows have equal keys and so stay on one side. As many rows are trained on as the planner counts:
    floor(rows x (1 - share)), give or take rows that are there more than once.
    """
    every = np.asarray(keys, np.int64)
    distinct, counts = np.unique(every, return_counts=True)
    if share <= 0 or len(distinct) < 2:
        return np.empty(0, np.int64)
    wanted = max(1, len(every) - math.floor(len(every) * (1 - share)))
    enough = int(np.searchsorted(np.cumsum(counts), wanted)) + 1
    return distinct[: min(enough, len(distinct) - 1)]  # something is left to train on


def weighted(indices: Any, keys: Any, weight: float) -> Longs:
    """Each row ``weight`` times an epoch; a fraction is that share of the rows, chosen by key."""
    every = np.asarray(indices, np.int64)
    whole, rest = divmod(weight, 1.0)
    by_key = np.lexsort((every, np.asarray(keys, np.int64)[every]))
    extra = every[by_key[: round(rest * len(every))]]
    return np.concatenate([np.tile(every, int(whole)), np.sort(extra)])
