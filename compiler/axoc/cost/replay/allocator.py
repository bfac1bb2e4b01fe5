"""CUDA's caching allocator with expandable segments: from allocations and frees to the bytes mapped.

Source: c10/cuda/CUDACachingAllocator.cpp of torch 2.11. Each stream has pools of its own, whose free memory serves no
other. A pool is one range of addresses that grows at its end; a block is taken from the smallest free one that is large
enough, and from the last one, behind which there is room without end, only where no other fits (get_free_block,
expandable_size). Free neighbours merge. Nothing goes back to the driver.
"""

from __future__ import annotations

from bisect import bisect_left, insort
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

Block = tuple["Pool", int, int]
"""(pool, address, bytes)"""


class Pool:
    """Free blocks by size and by either end. ``end``: where mapped memory ends."""

    def __init__(self, page_bytes: int) -> None:
        self.page_bytes, self.end = page_bytes, 0
        self._by_size: list[tuple[int, int]] = []
        self._size_at: dict[int, int] = {}
        self._start_of: dict[int, int] = {}

    def allocate(self, num_bytes: int) -> Block:
        index = bisect_left(self._by_size, (num_bytes, -1))
        found = self._by_size[index : index + 2]
        if found and sum(found[0]) == self.end and len(found) > 1:
            found = found[1:]
        size, address = found[0] if found else self._grown(num_bytes)
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

    def _grown(self, num_bytes: int) -> tuple[int, int]:
        """Maps pages behind the last block, as many as the request lacks. Returns (size, address) of a free block."""
        start = self._start_of.get(self.end, self.end)
        lacking = num_bytes - (self.end - start)
        mapped = -(-lacking // self.page_bytes) * self.page_bytes
        self.end += mapped
        self.free(self.end - mapped, mapped)
        return self._size_at[start], start

    def _put(self, address: int, size: int) -> None:
        insort(self._by_size, (size, address))
        self._size_at[address] = size
        self._start_of[address + size] = address

    def _take(self, address: int, size: int) -> None:
        del self._by_size[bisect_left(self._by_size, (size, address))]
        del self._size_at[address], self._start_of[address + size]


class Allocator:
    """The two pools of each stream of one device, and its bytes in use. Stream 0 is the default one."""

    def __init__(self) -> None:
        self._pools: dict[tuple[bool, int], Pool] = {}
        self.allocated = self.peak_allocated = 0

    @property
    def reserved(self) -> int:
        """Pools never shrink: what is mapped at the end is the peak."""
        return sum(pool.end for pool in self._pools.values())

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
            found = self._pools[small, stream] = Pool(SMALL_PAGE_BYTES if small else LARGE_PAGE_BYTES)
        return found

    def free(self, block: Block | None) -> None:
        if block is not None:
            pool, address, size = block
            self.allocated -= size
            pool.free(address, size)
