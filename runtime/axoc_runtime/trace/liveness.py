"""Live bytes of a run, counted by storage: a dispatch mode that sees every tensor born and every storage die."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from axoc_runtime.trace.launches import Launches
from axoc_runtime.trace.remembered import UNKNOWN, RememberingMode

BLOCK_BYTES: Final = 512
"""Every allocation on a GPU is rounded up to it (c10/core/AllocatorConfig.h, kMinBlockSize)."""
ON_HOST: Final = 0
"""A block that is none of the device's."""

DEVICE_OF: Final = torch.ops.prim.device.default


class Event(NamedTuple):
    """One call of the allocator, in order."""

    block: int
    """Names the allocation; its free carries the same number."""
    num_bytes: int
    """Positive for an allocation, negative for its free; rounded to blocks. 0: the cache is emptied."""
    phase: str
    stream: int = 0
    """On which the memory was asked for: it serves no other stream afterwards."""


class Apart(NamedTuple):
    """What one piece of work did to memory, whatever was there before."""

    blocks: int
    """It allocated so many."""
    peak_bytes: int
    """Above what was live when it began."""
    events: list[Event]
    """Their blocks are numbered from one on."""


Rule = Callable[["Liveness", Any, tuple[Any, ...], dict[str, Any]], Any]
"""Runs an operation in its own way: (mode, operation, arguments, keywords) -> result."""


class Liveness(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of storages that operations made and that are still referenced.

    ``rules`` replace single operations: those a GPU does otherwise than the CPU's code under fake tensors. ``memory``
    is the mode beneath this one, asked first.
    """

    def __init__(self, rules: dict[Any, Rule] | None = None, memory: RememberingMode | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rules = rules or {}
        self.memory = memory
        self._plain: set[Any] = set()
        """Types of arguments, seen before, of which none is a DTensor."""
        self.launches: Launches | None = None
        """What notes them, where they are asked for."""
        self.phase = "load"
        self.stream = 0
        self.hosting = False
        self.live = 0
        self.peaks: dict[str, int] = {}
        """Highest live bytes by phase."""
        self.events: list[Event] = []
        self._known: dict[int, Any] = {}
        self._blocks: dict[int, tuple[int, int]] = {}
        """(block, bytes) of each storage that is known."""
        self._next = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and the wrapper that says so is not free

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        return True  # compiled blocks are not run operation by operation

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is DEVICE_OF:  # asked twice for each operation
            return args[0].fake_device
        if types not in self._plain and not self._counts(types):
            return NotImplemented  # it acts on the tensors inside it, which come back here
        rule = self.rules.get(func)
        result = self.run(func, args, kwargs or {}) if rule is None else rule(self, func, args, kwargs or {})
        if self.launches is not None:
            self.launches.see(func, args, kwargs or {}, result, self._answered())
        if isinstance(result, torch.Tensor):
            self.see(result)
        elif isinstance(result, (tuple, list)):
            for item in result:
                if isinstance(item, torch.Tensor):
                    self.see(item)
        return result

    def _answered(self) -> Any:
        """By memory, to the operation that ran last: once."""
        if self.memory is None:
            return None
        answer, self.memory.answered = self.memory.answered, None
        return answer

    def _counts(self, types: Any) -> bool:
        """Whether tensors of these types have memory themselves."""
        if any(t.__name__ == "DTensor" for t in types):
            return False
        self._plain.add(types)
        return True

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        known = UNKNOWN if self.memory is None else self.memory.remembered(func, args, kwargs)
        return func(*args, **kwargs) if known is UNKNOWN else known

    def made(self, size: Any, stride: Any, dtype: torch.dtype) -> torch.Tensor:
        """torch.empty_strided, without the dispatcher."""
        if self.memory is None:
            return torch.empty_strided(size, stride, dtype=dtype)
        tensor = self.memory.made(size, stride, dtype)
        self.see(tensor)
        return tensor

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Counts what happens inside to ``phase``."""
        before, self.phase = self.phase, phase
        self.mark()
        try:
            yield
        finally:
            self.phase = before

    @contextmanager
    def on_stream(self, stream: int) -> Iterator[None]:
        """What is allocated inside comes from the memory of ``stream``; 0 is the default one."""
        before, self.stream = self.stream, stream
        try:
            yield
        finally:
            self.stream = before

    @contextmanager
    def on_host(self) -> Iterator[None]:
        """What is allocated inside is no memory of the device."""
        before, self.hosting = self.hosting, True
        try:
            yield
        finally:
            self.hosting = before

    def see(self, tensor: torch.Tensor) -> None:
        """Counts the tensor's storage, once, until it is freed."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        if num_bytes := rounded(storage.nbytes()):
            self._follow(storage, num_bytes)

    def _follow(self, storage: Any, num_bytes: int) -> None:
        key = storage._cdata
        self._blocks[key] = (self.allocate(num_bytes), num_bytes)
        self._known[key] = weakref.ref(storage, partial(self._gone, key))

    def _gone(self, key: int, _: Any = None) -> None:
        del self._known[key]
        self.free(*self._blocks.pop(key))

    def resize(self, storage: Any, num_bytes: int) -> None:
        """UntypedStorage.resize_, which no mode sees: the old block is freed, and a new one allocated."""
        storage.resize_(num_bytes)
        if storage._cdata in self._known:
            self._gone(storage._cdata)
        if num_bytes:
            self._follow(storage, rounded(num_bytes))

    def allocate(self, num_bytes: int) -> int:
        """Bytes that no tensor here stands for, such as a library's workspace. Returns the block to free."""
        if self.hosting:
            return ON_HOST
        self._next += 1
        self.live += num_bytes
        self.events.append(Event(self._next, num_bytes, self.phase, self.stream))
        self.mark()
        return self._next

    def free(self, block: int, num_bytes: int) -> None:
        if block == ON_HOST:
            return
        self.live -= num_bytes
        self.events.append(Event(block, -num_bytes, self.phase))

    def scratch(self, num_bytes: int) -> None:
        """Bytes that an operation holds only while it runs."""
        size = rounded(num_bytes)
        if size:
            self.free(self.allocate(size), size)

    def empty_cache(self) -> None:
        """torch.cuda.empty_cache, which only the allocator's model cares for."""
        self.events.append(Event(0, 0, self.phase))

    def mark(self) -> None:
        if self.live > self.peaks.get(self.phase, 0):
            self.peaks[self.phase] = self.live

    def standing(self) -> tuple[int, list[int]]:
        """What is live, in all and by storage."""
        return self.live, sorted(num_bytes for _, num_bytes in self._blocks.values())

    def apart(self, work: Callable[[], None], phase: str) -> Apart:
        """What ``work`` did to memory in ``phase``, as it would be done after whatever left as much standing. Raises ValueError where it
        freed what was there before."""
        began, at, before = self._next, len(self.events), self.live
        work()
        found = [e._replace(block=e.block - began) if e.num_bytes else e for e in self.events[at:]]
        if any(e.num_bytes and e.block <= 0 for e in found):
            raise ValueError("what was there before was freed")
        return Apart(self._next - began, self.peaks[phase] - before, found)

    def take(self, apart: Apart, phase: str) -> None:
        """Counts what was done apart, as if it had been done now."""
        self.events += [e._replace(block=e.block + self._next) if e.num_bytes else e for e in apart.events]
        self.peaks[phase] = max(self.peaks.get(phase, 0), self.live + apart.peak_bytes)
        self._next += apart.blocks

    def settle(self) -> None:
        """Forgets how the present state came about: what is live now becomes the first events."""
        alive: dict[int, Event] = {}
        for event in self.events:
            if event.num_bytes > 0:
                alive[event.block] = event
            else:
                alive.pop(event.block, None)
        self.events = [event._replace(phase=self.phase) for event in alive.values()]
        self.peaks = {self.phase: self.live}


def rounded(num_bytes: int) -> int:
    """Up to whole blocks."""
    return -(-num_bytes // BLOCK_BYTES) * BLOCK_BYTES
