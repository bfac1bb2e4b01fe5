"""Free blocks of the allocator's model: found by size, then address, and merged with their neighbours."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator


class FreeBlocks:
    """Invariant: no two free blocks touch, but across a border."""

    def __init__(self) -> None:
        self.borders: set[int] = set()
        """First addresses of segments: blocks never merge across them."""
        self._by_size: list[tuple[int, int]] = []
        self._sizes: dict[int, int] = {}
        """Address to size."""
        self._starts: dict[int, int] = {}
        """End to start."""

    def put(self, address: int, size: int) -> None:
        """Adds a block, merged with the free ones beside it. None of no size."""
        if size == 0:
            return
        if address not in self.borders and address in self._starts:
            before = self._starts[address]
            address, size = before, size + self.take(before)
        end = address + size
        if end not in self.borders and end in self._sizes:
            size += self.take(end)
        self._sizes[address] = size
        self._starts[address + size] = address
        insort(self._by_size, (size, address))

    def take(self, address: int) -> int:
        """Removes the block at an address. Returns its size."""
        size = self._sizes.pop(address)
        del self._starts[address + size]
        del self._by_size[bisect_left(self._by_size, (size, address))]
        return size

    def at_least(self, num_bytes: int) -> Iterator[tuple[int, int]]:
        """(address, size) of blocks that are large enough, the smallest and lowest first."""
        for index in range(bisect_left(self._by_size, (num_bytes, -1)), len(self._by_size)):
            size, address = self._by_size[index]
            yield address, size

    def all(self) -> list[tuple[int, int]]:
        """(address, size) by address."""
        return sorted(self._sizes.items())

    def size_of(self, address: int) -> int:
        """Of the block that begins there; 0 where none does."""
        return self._sizes.get(address, 0)

    def ending_at(self, end: int, otherwise: int) -> int:
        """The start of the block that ends there."""
        return self._starts.get(end, otherwise)
