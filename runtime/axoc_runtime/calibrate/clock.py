"""Seconds of kernels on a device and of their launches on the host.

A kernel's own time shows only while the device never waits for the host. So a batch of calls is queued behind a kernel
that spins for longer than the host needs to queue them, between two events: what is then read off is what the stream
would take in a step that keeps the device busy, gaps between kernels included. Medians of several batches.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import torch

Call = Callable[[], object]
BATCHES: Final = 5
BATCH_SECONDS: Final = 2e-3
"""A batch runs at least so long: events resolve half a microsecond."""
LONG_SECONDS: Final = 10e-3
"""A single round of calls this long repeats well enough with fewer batches."""
MOST_CALLS: Final = 64
MOST_HOST_SECONDS: Final = 4e-3
"""To queue a batch: a stream holds about a thousand launches, and an eager one takes some 5 microseconds."""
now = time.perf_counter


class Clock(Protocol):
    device: torch.device
    cache_bytes: int
    """The last cache before memory: what a kernel finds there was not read from memory."""
    small: bool
    """Sizes for a trial of the script, not for a profile."""

    def seconds(self, calls: Sequence[Call]) -> float: ...
    def host_seconds(self, call: Call) -> float: ...
    def synchronize(self) -> None: ...
    def release(self) -> None: ...


class CudaClock:
    """Times CUDA (and ROCm) streams."""

    def __init__(self, index: int = 0, *, small: bool = False) -> None:
        self.device = torch.device("cuda", index)
        torch.cuda.set_device(self.device)
        properties = torch.cuda.get_device_properties(index)
        self.cache_bytes = int(getattr(properties, "L2_cache_size", 0)) or 64 << 20
        self.total_bytes = int(properties.total_memory)
        self.small = small
        self.cycles_per_second = self._spin_rate()

    def _spin_rate(self) -> float:
        cycles = 20_000_000
        _spin(cycles)
        return cycles / self._between(lambda: _spin(cycles))

    def _between(self, call: Call) -> float:
        start, end = _event(), _event()
        start.record()
        call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3

    def seconds(self, calls: Sequence[Call]) -> float:
        """Device seconds of one call, the calls taken in turn."""
        _run(calls, 1)
        self.synchronize()
        began = now()
        _run(calls, 1)
        host = now() - began
        self.synchronize()
        whole = now() - began
        rounds = _rounds(len(calls), whole, host)
        batches = BATCHES if whole < LONG_SECONDS else 3
        spin = int(self.cycles_per_second * (min(host * 1.5, MOST_HOST_SECONDS * 1.5) * rounds + 50e-6))
        return statistics.median(self._batch(calls, rounds, spin) for _ in range(batches))

    def _batch(self, calls: Sequence[Call], rounds: int, spin: int) -> float:
        """Seconds of a call. Where the device reached the batch before all was queued, it spins longer once more."""
        for longer in (1, 3, 9):
            start, end = _event(), _event()
            _spin(spin * longer)
            start.record()
            _run(calls, rounds)
            end.record()
            caught_up = start.query()  # type: ignore[no-untyped-call]
            end.synchronize()
            if not caught_up:
                break
        return float(start.elapsed_time(end)) / 1e3 / (rounds * len(calls))

    def host_seconds(self, call: Call) -> float:
        """Host seconds until ``call`` returns, the device being idle or ahead."""
        return _host_seconds(call, self.synchronize)

    def synchronize(self) -> None:
        torch.cuda.synchronize(self.device)

    def release(self) -> None:
        """Gives cached blocks back once they are many: to do it each time costs more than most measurements."""
        if torch.cuda.memory_reserved(self.device) > 0.4 * self.total_bytes:
            torch.cuda.empty_cache()


def _spin(cycles: int) -> None:
    torch.cuda._sleep(cycles)  # type: ignore[no-untyped-call]


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


class CpuClock:
    """The same on a CPU, where launches and kernels are one."""

    def __init__(self, *, small: bool = True) -> None:
        self.device = torch.device("cpu")
        self.cache_bytes = 1 << 20
        self.small = small

    def seconds(self, calls: Sequence[Call]) -> float:
        _run(calls, 1)
        return statistics.median(self._round(calls) for _ in range(3))

    def _round(self, calls: Sequence[Call]) -> float:
        began = now()
        _run(calls, 1)
        return (now() - began) / len(calls)

    def host_seconds(self, call: Call) -> float:
        return _host_seconds(call, self.synchronize)

    def synchronize(self) -> None:
        return

    def release(self) -> None:
        return


def _run(calls: Sequence[Call], rounds: int) -> None:
    for _ in range(rounds):
        for call in calls:
            call()


def _rounds(calls: int, whole: float, host: float) -> int:
    """Rounds of a batch: long enough to be read, few enough to be queued."""
    wanted = math.ceil(BATCH_SECONDS / max(whole, 1e-6))
    queued = int(MOST_HOST_SECONDS / max(host, 1e-6))
    return max(1, min(wanted, queued, MOST_CALLS // calls))


def _host_seconds(call: Call, synchronize: Callable[[], None]) -> float:
    for _ in range(3):
        call()
    synchronize()
    began = now()
    call()
    each = max(now() - began, 1e-7)
    count = max(1, min(100, int(BATCH_SECONDS / each)))
    batches = []
    for _ in range(7):
        synchronize()
        began = now()
        _run([call], count)
        batches.append((now() - began) / count)
    synchronize()
    return statistics.median(batches)


def rotating(clock: Clock, make: Callable[[], Any], num_bytes: int) -> list[Any]:
    """So many of what ``make`` gives (``num_bytes`` each) that none is still in the cache when its turn comes again."""
    wanted = math.ceil(3 * clock.cache_bytes / max(num_bytes, 1))
    return [make() for _ in range(max(2, min(wanted, MOST_CALLS // 2)))]


def random(clock: Clock, *shape: int, dtype: torch.dtype = torch.bfloat16, scale: float = 1.0) -> torch.Tensor:
    """Normal values: power, and so the clock, depends on the data."""
    made = torch.randn(shape, device=clock.device, dtype=torch.float32 if dtype.itemsize < 2 else dtype)
    return (made.mul_(scale) if scale != 1.0 else made).to(dtype)
