"""The Pareto set: rows that fit and that no other row beats in time, money and device memory at once."""

from __future__ import annotations

from typing import Final

import numpy as np

from axoc.search.objective import Objective, seconds
from axoc.search.rank import Row

MAX_POINTS: Final = 20
AXES: Final = ("seconds", "dollars", "device bytes")


def pareto(ranked: list[Row], wanted: Objective) -> list[Row]:
    """The front, best by the objective first. The first ranked row is among them only where it lies on the front."""
    points = _points(ranked, wanted)
    kept: list[int] = []
    for i in np.lexsort(points.T[::-1]):  # by time, then money, then memory: what beats a row comes before it
        if not kept or not (points[kept] <= points[i]).all(axis=1).any():
            kept.append(int(i))
    return [ranked[i] for i in sorted(kept)[:MAX_POINTS]]


def _points(ranked: list[Row], wanted: Objective) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """One line a row: seconds and dollars of a trained sequence, bytes used of the device."""
    passes = {id(p): p for p, _ in ranked}
    columns = {
        i: np.stack([seconds(p), wanted.dollars(p), p.costed.memory.device_used], axis=1) for i, p in passes.items()
    }
    return np.array([columns[id(p)][r] for p, r in ranked], dtype=np.float64).reshape(-1, len(AXES))
