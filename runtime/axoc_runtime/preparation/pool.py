"""Units of work over processes: as many as this machine's processors, and only a few units in memory at a time."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, Final

from axoc_runtime.errors import EXIT_DATA, RuntimeFailure
from axoc_runtime.failure.heartbeat import die_with_parent

AHEAD: Final = 2
"""Units read ahead for each process."""
MOST_PROCESSES: Final = 32
"""One process reads for all: beyond this many they would wait for it."""
_WORK: Callable[[Any], int] | None = None
"""In a worker process: what is done with a unit."""


def processes() -> int:
    """That this one may use."""
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(mine, MOST_PROCESSES)


def over_processes(work: Callable[[Any], int], units: Iterable[Any], count: int) -> Iterator[int]:
    """``work`` of each unit, in no order. With a single process, or a single unit, it is done right here."""
    source = iter(units)
    first = list(islice(source, 2))
    if count < 2 or len(first) < 2 or not sys.platform.startswith("linux"):
        yield from map(work, _chained(first, source))
        return
    # forked, as datasets.map does: the tokenizer is there already, and no process imports anything again
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(count, mp_context=context, initializer=_begin, initargs=(work,)) as pool:
        try:
            yield from _kept_busy(pool, _chained(first, source), count * AHEAD)
        except BrokenProcessPool:
            fix = "launch again: what is finished is kept. If it happens again, this machine has too little memory"
            raise RuntimeFailure("a process that prepared rows was killed", EXIT_DATA, fix) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _kept_busy(pool: ProcessPoolExecutor, units: Iterable[Any], most: int) -> Iterator[int]:
    waiting: set[Future[int]] = set()
    for unit in units:
        waiting.add(pool.submit(_do, unit))
        if len(waiting) >= most:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    done, _ = wait(waiting)
    yield from (future.result() for future in done)


def _begin(work: Callable[[Any], int]) -> None:
    global _WORK
    _WORK = work
    die_with_parent(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the work, in a line
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # threads of its own would fight with the other processes
    gc.freeze()  # what came with the fork is not looked through, which would copy its pages
    gc.disable()  # rows are lists of numbers without cycles: looking through them takes a twentieth of the time


def _do(unit: Any) -> int:
    assert _WORK is not None
    done = _WORK(unit)
    gc.collect()  # what templates and libraries left in cycles
    return done


def _chained(first: list[Any], rest: Iterator[Any]) -> Iterator[Any]:
    """A unit is let go of when it is handed over: the list must not hold it."""
    while first:
        yield first.pop(0)
    yield from rest
