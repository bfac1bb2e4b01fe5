"""Best fit decreasing: documents, the longest first, each into the pack where it leaves the least room.

Documents of one length are placed together, so the time goes with the number of different lengths, not of documents: an
integer whose bits are the rooms that some pack has left finds the best fit at once.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Longs = NDArray[np.int64]
WINDOW_DOCUMENTS: Final = 1 << 16
"""Packed together. More would fill packs no better (docs/decisions/0008-preparation.md), and would have to be held at once."""
FEW_PACKS: Final = 64
"""A job of fewer is told so: an epoch is then few steps, and a held-out split of one pack is one batch."""


def packs(lengths: Any, capacity: int, window: int = WINDOW_DOCUMENTS) -> tuple[Longs, Longs]:
    """(documents pack by pack, where each pack begins among them and the last one ends).

    ``lengths``: tokens of each document, 1 to ``capacity``. A window is packed by itself, so documents that are near one
    another stay near. The same lengths give the same packs.
    """
    order: list[Longs] = []
    counts: list[Longs] = []
    every = np.asarray(lengths, dtype=np.int64)
    if every.size and (every.min() < 1 or every.max() > capacity):
        raise ValueError(f"documents of {every.min()} to {every.max()} tokens do not fit packs of {capacity}")
    for start in range(0, len(every), window):
        pack_of = best_fit(every[start : start + window], capacity)
        order.append(np.argsort(pack_of, kind="stable") + start)
        counts.append(np.bincount(pack_of))
    edges = np.concatenate([[0], *counts]).cumsum()
    return np.concatenate(order) if order else np.empty(0, np.int64), edges


def best_fit(lengths: Longs, capacity: int) -> Longs:
    """The pack of each document."""
    longest_first = np.argsort(-lengths, kind="stable")
    pack_of = np.empty(len(lengths), np.int64)
    room = _Room(capacity)
    sizes, firsts = np.unique(-lengths[longest_first], return_index=True)
    for size, first, count in zip((-sizes).tolist(), firsts, np.diff(firsts, append=len(lengths)), strict=True):
        group, placed = longest_first[first : first + count], 0
        for packs_, each in room.place(size, int(count)):
            into = np.repeat(np.arange(packs_.start, packs_.stop), each)
            pack_of[group[placed : placed + len(into)]] = into
            placed += len(into)
    return pack_of


class _Room:
    """Packs by the room that is left in them, as ranges of their numbers."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.packs = 0
        self.with_room: dict[int, list[range]] = {}
        self.bits = 0
        """Bit r is set where some pack has room for r tokens more."""

    def place(self, size: int, count: int) -> list[tuple[range, int]]:
        """(packs, documents put into each of them) for ``count`` documents of ``size`` tokens."""
        made = []
        while count:
            found, left = self._take(size)
            each = min(left // size, count)
            full = min(len(found), count // each)
            self._put(range(found.start + full, found.stop), left)
            self._put(range(found.start, found.start + full), left - each * size)
            made.append((range(found.start, found.start + full), each))
            count -= full * each
        return made

    def _take(self, size: int) -> tuple[range, int]:
        """Packs with the least room that suffices, and that room; a new one where there are none."""
        above = self.bits >> size
        if not above:
            self.packs += 1
            return range(self.packs - 1, self.packs), self.capacity
        left = size + (above & -above).bit_length() - 1
        ranges = self.with_room[left]
        taken = ranges.pop()
        if not ranges:
            self.bits &= ~(1 << left)
        return taken, left

    def _put(self, packs_: range, left: int) -> None:
        if packs_ and left:
            self.with_room.setdefault(left, []).append(packs_)
            self.bits |= 1 << left
