"""glibc's malloc, as far as a CPU's tensors need it: from allocations and frees to the bytes that stay resident.

Source: glibc 2.36, malloc/malloc.c (_int_memalign, _int_malloc, _int_free, sysmalloc). torch asks for memory on borders of 64
bytes (c10/core/impl/alloc_cpu.cpp), for which malloc looks for a free piece that is 96 bytes larger and gives both ends back.
These are taken by the small objects that come with every tensor, so that a hole which a tensor leaves is too small for another
one like it, and two neighbours are no larger one: here these ends are never free again, nor is the heap's own. Where nothing
free is large enough and the request is above a threshold, it is mapped on its own, and given back when freed; the threshold
then rises to what was freed, up to 32 MiB.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass
from typing import Final

from axoc.units import KIB, MIB

ALIGNMENT: Final = 64
LEAST: Final = 32
"""MINSIZE"""
HEADER: Final = 16
PAGE: Final = 4 * KIB
TOP_PAD: Final = 128 * KIB
FIRST_THRESHOLD: Final = 128 * KIB
HIGHEST_THRESHOLD: Final = 32 * MIB


@dataclass(frozen=True)
class Chunk:
    """``address`` None: mapped on its own. ``begun``: the stretch that it is of."""

    begun: int
    address: int | None
    size: int


class Heap:
    """One process. It has the face of allocator.py's Allocator."""

    def __init__(self) -> None:
        self.allocated = self.peak_allocated = self.begun = 0
        self.threshold = FIRST_THRESHOLD
        self.begin()

    def begin(self) -> None:
        """malloc_trim: what is free is given back to the kernel, wherever it lies, and counts again when it is used again."""
        self.kept, self.begun = self.allocated, self.begun + 1
        self.end = self.top = self.mapped = self.peak_resident = 0
        self._by_size: list[tuple[int, int]] = []
        self._size_at: dict[int, int] = {}
        self._start_of: dict[int, int] = {}

    def allocate(self, num_bytes: float, stream: int = 0) -> Chunk | None:
        """None for nothing."""
        if num_bytes < 1:
            return None
        chunk = self._placed(-(-(int(num_bytes) + HEADER) // HEADER) * HEADER)
        self.allocated += chunk.size
        self.peak_allocated = max(self.peak_allocated, self.allocated)
        self.peak_resident = max(self.peak_resident, self.kept + self.end + self.mapped)
        return chunk

    def _placed(self, size: int) -> Chunk:
        wanted = size + ALIGNMENT + LEAST
        index = bisect_left(self._by_size, (wanted, -1))
        if index < len(self._by_size):
            found, address = self._by_size[index]
            self._take(address, found)
            return self._cut(address, found, size)
        if wanted > self.end - self.top and wanted >= self.threshold:
            whole = -(-wanted // PAGE) * PAGE
            self.mapped += whole
            return Chunk(self.begun, None, whole)
        lacking = wanted + LEAST - (self.end - self.top)
        if lacking > 0:
            self.end += -(-(lacking + TOP_PAD) // PAGE) * PAGE
        address, self.top = self.top, self.top + wanted
        return self._cut(address, wanted, size)

    def _cut(self, address: int, found: int, size: int) -> Chunk:
        lead = -(address + HEADER) % ALIGNMENT
        lead += ALIGNMENT if 0 < lead < LEAST else 0
        rest = found - lead - size
        if rest > ALIGNMENT + 2 * LEAST:
            self._put(address + lead + size, rest)
        return Chunk(self.begun, address + lead, size)

    def free(self, chunk: Chunk | None) -> None:
        if chunk is None:
            return
        self.allocated -= chunk.size
        if chunk.begun != self.begun:
            self.kept -= chunk.size
        elif chunk.address is None:
            self.mapped -= chunk.size
            if chunk.size <= HIGHEST_THRESHOLD:
                self.threshold = max(self.threshold, chunk.size)
        else:
            self._put(chunk.address, chunk.size)

    def _put(self, address: int, size: int) -> None:
        before = self._start_of.get(address)
        if before is not None:
            self._take(before, address - before)
            address, size = before, size + address - before
        behind = self._size_at.get(address + size)
        if behind is not None:
            self._take(address + size, behind)
            size += behind
        insort(self._by_size, (size, address))
        self._size_at[address] = size
        self._start_of[address + size] = address

    def _take(self, address: int, size: int) -> None:
        del self._by_size[bisect_left(self._by_size, (size, address))]
        del self._size_at[address], self._start_of[address + size]
