"""CUDA's caching allocator with expandable segments: from allocations and frees to the bytes mapped.

Source: c10/cuda/CUDACachingAllocator.cpp of torch 2.11. Each stream has pools of its own, whose free memory serves no
other. A pool is one range of addresses without end, of which what has no memory behind it is a hole. A block is taken from
the smallest free one that is large enough; one with a hole behind it counts as large as it may become, so that others are
taken before it (get_free_block, expandable_size). Where none fits, pages are mapped into the first hole where the request
finds room (find_expandable_block). Free neighbours merge. Memory goes back to the driver, in whole pages, where the program
asks (empty_cache), and where a mapping fails because the device is full: then the request is tried once more (malloc,
release_cached_blocks).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable
from typing import Final

from axoc.units import MIB

BLOCK_BYTES: Final = 512
"""Sizes are rounded up to it (kMinBlockSize)."""
SMALL_BYTES: Final = MIB
"""kSmallSize: the largest allocation of the small pool."""
SMALL_PAGE_BYTES: Final = 2 * MIB
"""kSmallBuffer: what the small pool maps at once."""
LARGE_PAGE_BYTES: Final = 20 * MIB
"""kLargeBuffer: what the large pool maps at once."""
ENDLESS: Final = 1 << 62
"""Addresses never run out."""

Block = tuple["Pool", int, int]
"""(pool, address, bytes)"""


class Device:
    """Bytes that the driver has given one process."""

    def __init__(self, limit_bytes: float) -> None:
        self.limit_bytes, self.mapped, self.peak_mapped = limit_bytes, 0, 0

    def has(self, num_bytes: int) -> bool:
        return self.mapped + num_bytes <= self.limit_bytes

    def map(self, num_bytes: int) -> None:
        self.mapped += num_bytes
        self.peak_mapped = max(self.peak_mapped, self.mapped)


class Pool:
    """Free blocks by size and by either end, and holes by their start."""

    def __init__(self, page_bytes: int, device: Device, full: Callable[[], None]) -> None:
        """``full``: has all pools of the device give back what is free."""
        self.page_bytes, self.device, self.full = page_bytes, device, full
        self._by_size: list[tuple[int, int]] = []
        self._size_at: dict[int, int] = {}
        self._start_of: dict[int, int] = {}
        self._holes: dict[int, int] = {0: ENDLESS}
        """Start to size; none touches another."""

    def allocate(self, num_bytes: int) -> Block:
        size, address = self._fitting(num_bytes) or self._grown(num_bytes)
        self._take(address, size)
        if size > num_bytes:
            self._put(address + num_bytes, size - num_bytes)
        return self, address, num_bytes

    def free(self, address: int, size: int) -> None:
        before = self._start_of.get(address)
        if before is not None:
            size += address - before
            self._take(before, address - before)
            address = before
        behind = self._size_at.get(address + size)
        if behind is not None:
            self._take(address + size, behind)
            size += behind
        self._put(address, size)

    def give_back(self) -> None:
        """All pages in which nothing lies."""
        for address, size in sorted(self._size_at.items()):
            first = -(-address // self.page_bytes) * self.page_bytes
            last = (address + size) // self.page_bytes * self.page_bytes
            if first < last:
                self._take(address, size)
                self._unmap(first, last - first)
                if address < first:
                    self._put(address, first - address)
                if last < address + size:
                    self._put(last, address + size - last)

    def _fitting(self, num_bytes: int) -> tuple[int, int] | None:
        """(size, address)"""
        found, least = None, 2 * ENDLESS
        for index in range(bisect_left(self._by_size, (num_bytes, -1)), len(self._by_size)):
            block = size, address = self._by_size[index]
            hole = self._holes.get(address + size)
            if hole is None:  # those behind it are no smaller
                return block if size < least else found
            if size + hole >= least:
                break
            found, least = block, size + hole
        return found

    def _grown(self, num_bytes: int) -> tuple[int, int]:
        """(size, address) of a free block with new memory behind it. Where a device that has given back all that is free lacks
        some still, the run is out of memory: the peak above the limit tells."""
        start = self._extended(num_bytes, must=False)
        if start is None:
            self.full()
            start = self._extended(num_bytes, must=True)
        assert start is not None
        return self._size_at[start], start

    def _extended(self, num_bytes: int, *, must: bool) -> int | None:
        """Where the block begins; None where the device is full, whatever was mapped before."""
        start = self._place(num_bytes)
        while (size := self._size_at.get(start, 0)) < num_bytes:
            hole = start + size
            pages = min(-(-(num_bytes - size) // self.page_bytes) * self.page_bytes, self._holes[hole])
            if not must and not self.device.has(pages):
                return None
            self._map(hole, pages)
        return start

    def _place(self, num_bytes: int) -> int:
        """The first hole, with what is free before it, where free memory and holes make up for so many bytes."""
        for hole in sorted(self._holes):
            start = end = self._start_of.get(hole, hole)
            while end - start < num_bytes and (more := self._size_at.get(end) or self._holes.get(end)):
                end += more
            if end - start >= num_bytes:
                return start
        raise AssertionError("the last hole has no end")

    def _map(self, hole: int, num_bytes: int) -> None:
        size = self._holes.pop(hole)
        if num_bytes < size:
            self._holes[hole + num_bytes] = size - num_bytes
        self.device.map(num_bytes)
        self.free(hole, num_bytes)

    def _unmap(self, start: int, size: int) -> None:
        self.device.mapped -= size
        before = next((s for s, n in self._holes.items() if s + n == start), None)
        if before is not None:
            size += self._holes.pop(before)
            start = before
        self._holes[start] = size + self._holes.pop(start + size, 0)

    def _put(self, address: int, size: int) -> None:
        insort(self._by_size, (size, address))
        self._size_at[address] = size
        self._start_of[address + size] = address

    def _take(self, address: int, size: int) -> None:
        del self._by_size[bisect_left(self._by_size, (size, address))]
        del self._size_at[address], self._start_of[address + size]


class Allocator:
    """The two pools of each stream of one device, and its bytes in use. Stream 0 is the default one."""

    def __init__(self, limit_bytes: float = float("inf")) -> None:
        """``limit_bytes``: what all pools can have of the device. Without one, what they would have had."""
        self._pools: dict[tuple[bool, int], Pool] = {}
        self._device = Device(limit_bytes)
        self.allocated = self.peak_allocated = self.retries = 0

    @property
    def reserved(self) -> int:
        return self._device.mapped

    @property
    def peak_reserved(self) -> int:
        return self._device.peak_mapped

    def reset_peaks(self) -> None:
        self.peak_allocated, self._device.peak_mapped = self.allocated, self._device.mapped

    def allocate(self, num_bytes: float, stream: int = 0) -> Block | None:
        """None for nothing."""
        rounded = -(-int(num_bytes) // BLOCK_BYTES) * BLOCK_BYTES
        if rounded <= 0:
            return None
        self.allocated += rounded
        self.peak_allocated = max(self.peak_allocated, self.allocated)
        return self._pool(rounded <= SMALL_BYTES, stream).allocate(rounded)

    def _pool(self, small: bool, stream: int) -> Pool:
        found = self._pools.get((small, stream))
        if found is None:
            page_bytes = SMALL_PAGE_BYTES if small else LARGE_PAGE_BYTES
            found = self._pools[small, stream] = Pool(page_bytes, self._device, self._full)
        return found

    def free(self, block: Block | None) -> None:
        if block is not None:
            pool, address, size = block
            self.allocated -= size
            pool.free(address, size)

    def empty_cache(self) -> None:
        for pool in self._pools.values():
            pool.give_back()

    def _full(self) -> None:
        self.retries += 1
        self.empty_cache()
