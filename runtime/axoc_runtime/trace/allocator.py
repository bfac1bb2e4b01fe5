"""CUDA's caching allocator, replayed: from allocation events to the bytes it reserves from the driver.

Source: c10/cuda/CUDACachingAllocator.cpp and c10/core/AllocatorConfig.h of torch 2.11, one stream, default settings
but for expandable_segments. Sizes are in bytes; events come rounded to 512.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from axoc_runtime.trace.free_blocks import FreeBlocks
from axoc_runtime.trace.liveness import BLOCK_BYTES, Event

MIB: Final = 1 << 20
ENDLESS: Final = 1 << 62
"""Addresses never run out."""
SMALL_BYTES: Final = MIB
"""kSmallSize: the largest allocation of the small pool."""
SMALL_PAGE: Final = 2 * MIB
"""kSmallBuffer: what the small pool takes from the driver at once."""
LARGE_PAGE: Final = 20 * MIB
"""kLargeBuffer: a page of expandable segments, and the segment for requests below MIN_LARGE_BYTES."""
MIN_LARGE_BYTES: Final = 10 * MIB
"""kMinLargeAlloc: requests from here on get a segment of their own size."""
ROUND_LARGE: Final = 2 * MIB
"""kRoundLarge: to which the segments of such requests are rounded."""


class Pool:
    """Blocks of one pool by address, on one stream.

    Expandable segments are one range of addresses without end: what is not mapped yet, or no longer, is a hole in it.
    """

    def __init__(self, *, small: bool, expandable: bool, full: Callable[[int], bool] | None = None) -> None:
        """``full``: asked before so many bytes more are taken from the device; where they are not there, it has had all pools
        give back what is free."""
        self.small, self.expandable, self.full = small, expandable, full
        self.page = SMALL_PAGE if small else LARGE_PAGE
        self.reserved = 0
        self.free = FreeBlocks()
        self._used: dict[int, tuple[int, int]] = {}
        self._holes: dict[int, int] = {0: ENDLESS}
        """Addresses without memory behind them: start to size."""

    def allocate(self, block: int, num_bytes: int) -> None:
        address, size = self._fitting(num_bytes) or self._grow(num_bytes)
        self.free.take(address)
        kept = num_bytes if self._splits(size - num_bytes) else size
        self._used[block] = (address, kept)
        if kept < size:
            self.free.put(address + kept, size - kept)

    def release(self, block: int) -> None:
        self.free.put(*self._used.pop(block))

    def empty(self) -> None:
        """torch.cuda.empty_cache: free memory goes back to the driver, in whole pages."""
        for address, size in self.free.all():
            first, last = -(-address // self.page) * self.page, (address + size) // self.page * self.page
            if not self.expandable or last <= first:
                continue
            self.free.take(address)
            self.free.put(address, first - address)
            self.free.put(last, address + size - last)
            self.reserved -= last - first
            self._hole(first, last - first)

    def _hole(self, start: int, size: int) -> None:
        before = next((s for s, n in self._holes.items() if s + n == start), None)
        if before is not None:
            start, size = before, size + self._holes.pop(before)
        size += self._holes.pop(start + size, 0)
        self._holes[start] = size

    def _fitting(self, num_bytes: int) -> tuple[int, int] | None:
        """The smallest free block that is large enough. One with a hole behind it counts as large as it may become, so
        that others which fit are taken before it (get_free_block, expandable_size)."""
        found: tuple[int, int] | None = None
        least = 2 * ENDLESS
        for address, size in self.free.at_least(num_bytes):
            room = size + (self._holes.get(address + size, 0) if self.expandable else 0)
            if room >= least:
                break
            found, least = (address, size), room
        return found

    def _splits(self, remaining: int) -> bool:
        """should_split: small blocks and those of expandable segments from 512 bytes on, others above 1 MiB."""
        return remaining >= BLOCK_BYTES if self.small or self.expandable else remaining > SMALL_BYTES

    def _grow(self, num_bytes: int) -> tuple[int, int]:
        """A free block of at least ``num_bytes`` with new memory behind it. Returns (address, size)."""
        return self._extend(num_bytes) if self.expandable else self._segment(num_bytes)

    def _extend(self, num_bytes: int) -> tuple[int, int]:
        """Maps pages into the first hole where the request finds room, with free blocks beside it and further holes
        (find_expandable_block, try_allocate_expandable_block)."""
        start = self._place(num_bytes)
        while (size := self.free.size_of(start)) < num_bytes:
            if self.full is not None and self.full(self._pages(start + size, num_bytes - size)):
                start = self._place(num_bytes)  # what lay there before may have been given back too
                size = self.free.size_of(start)
            if size < num_bytes:
                self._map(start + size, num_bytes - size)
        return start, size

    def _place(self, num_bytes: int) -> int:
        """Where a block of that size begins that needs new memory."""
        for hole in sorted(self._holes):
            start = self.free.ending_at(hole, hole)
            if self._room(start) >= num_bytes:
                break
        return start

    def _room(self, start: int) -> int:
        """Bytes from ``start`` on that are free or without memory."""
        end = start
        while more := self.free.size_of(end) or self._holes.get(end, 0):
            end += more
        return end - start

    def _pages(self, hole: int, wanted: int) -> int:
        return min(-(-wanted // self.page) * self.page, self._holes[hole])

    def _map(self, hole: int, wanted: int) -> None:
        mapped, size = self._pages(hole, wanted), self._holes.pop(hole)
        if mapped < size:
            self._holes[hole + mapped] = size - mapped
        self.reserved += mapped
        self.free.put(hole, mapped)

    def _segment(self, num_bytes: int) -> tuple[int, int]:
        """cudaMalloc of a segment of its own (get_allocation_size)."""
        if self.small:
            size = SMALL_PAGE
        elif num_bytes < MIN_LARGE_BYTES:
            size = LARGE_PAGE
        else:
            size = -(-num_bytes // ROUND_LARGE) * ROUND_LARGE
        (address,) = self._holes
        del self._holes[address]
        self._holes[address + size] = ENDLESS
        self.reserved += size
        self.free.borders.add(address)
        self.free.put(address, size)
        return address, size


def reserved_bytes(
    events: Iterable[Event], *, expandable: bool = True, limit: int | None = None, since: int = 0
) -> int:
    """What max_memory_reserved would say after ``events``, its peak reset before number ``since``: memory goes back only where the
    program asks, or where more than ``limit`` is asked of the device: then all free pages go back, and the request is tried once
    more (malloc, release_cached_blocks). Each stream has pools of its own; that a block waits for the other streams that used it
    (record_stream) is not followed."""
    pools: dict[tuple[bool, int], Pool] = {}
    homes: dict[int, Pool] = {}
    most = 0

    def reserved() -> int:
        return sum(pool.reserved for pool in pools.values())

    def full(more: int) -> bool:
        if limit is None or reserved() + more <= limit:
            return False
        for pool in pools.values():
            pool.empty()
        return True

    for number, (block, num_bytes, _, stream) in enumerate(events):
        if number == since:
            most = reserved()
        if num_bytes == 0:
            for pool in pools.values():
                pool.empty()
        elif num_bytes > 0:
            key = (num_bytes <= SMALL_BYTES, stream)
            pool = pools.get(key) or pools.setdefault(key, Pool(small=key[0], expandable=expandable, full=full))
            homes[block] = pool
            before = pool.reserved
            pool.allocate(block, num_bytes)
            if pool.reserved != before:
                most = max(most, reserved())
        elif block in homes:
            homes.pop(block).release(block)
    return most
