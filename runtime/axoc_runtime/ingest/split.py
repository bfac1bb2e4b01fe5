"""Which rows are held out. By a digest of each row, so that neither a library's version nor the rows' order decides."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any


def row_key(row: Mapping[str, Any], seed: int) -> int:
    """A number that depends on the row and the seed alone; the same rows have the same."""
    text = json.dumps(row, sort_keys=True, ensure_ascii=False, default=str)
    return int.from_bytes(hashlib.sha256(f"{seed}\n{text}".encode()).digest()[:7], "big")


def held_out_keys(keys: Sequence[int], share: float) -> frozenset[int]:
    """Keys to hold out: the smallest, as many as make up ``share`` of the rows, and at least one.

    Equal rows have equal keys and so stay on one side. As many rows are trained on as the planner counts:
    floor(rows x (1 - share)), give or take rows that are there more than once.
    """
    counts = Counter(keys)
    if share <= 0 or len(counts) < 2:
        return frozenset()
    wanted = max(1, len(keys) - math.floor(len(keys) * (1 - share)))
    held: list[int] = []
    rows = 0
    for key in sorted(counts)[:-1]:  # something is left to train on
        if rows >= wanted:
            break
        held.append(key)
        rows += counts[key]
    return frozenset(held)


def weighted(indices: Sequence[int], keys: Sequence[int], weight: float) -> list[int]:
    """Each row ``weight`` times an epoch; a fraction is that share of the rows, chosen by key."""
    whole, rest = divmod(weight, 1.0)
    extra = sorted(indices, key=lambda i: (keys[i], i))[: round(rest * len(indices))]
    return list(indices) * int(whole) + sorted(extra)
