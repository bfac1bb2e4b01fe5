"""The allocator's model against outcomes worked out by hand from CUDACachingAllocator.cpp."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.slow  # liveness, which events come from, imports torch
MIB = 1 << 20


def events(*sizes: float) -> list[Any]:
    """MiB: positive allocates block 1, 2, 3, ...; negative frees the block of that number."""
    from axoc_runtime.trace.liveness import Event

    made, held = [], [0]
    for size in sizes:
        if size > 0:
            held.append(int(size * MIB))
            made.append(Event(len(held) - 1, held[-1], "step"))
        else:
            made.append(Event(int(-size), -held[int(-size)], "step"))
    return made


def reserved(*sizes: float, expandable: bool = True, limit: int | None = None) -> float:
    from axoc_runtime.trace.allocator import reserved_bytes

    most = None if limit is None else limit * MIB
    return reserved_bytes(events(*sizes), expandable=expandable, limit=most) / MIB


def test_expandable_segments_grow_in_pages_of_20_mib_at_the_tail() -> None:
    assert reserved(30) == 40
    assert reserved(30, 10) == 40  # the rest of the second page
    assert reserved(30, 11) == 60  # one more page joins the 10 MiB at the tail
    assert reserved(30, -1, 50) == 60  # a free block at the tail grows, nothing is lost


def test_a_hole_below_the_tail_is_lost_to_what_is_larger() -> None:
    assert reserved(20, 20, -1, 21) == 80  # 20 MiB free below, 21 do not fit
    assert reserved(20, 20, -1, 20) == 40
    assert reserved(20, 20, 20, -1, -2, 40) == 60  # neighbours merge


def test_the_best_fit_is_taken_then_the_lowest() -> None:
    # free: 40 at 0, 20 at 60; the 20 MiB request takes the smaller hole, so 40 fit below
    assert reserved(40, 20, 20, 20, -1, -3, 20, 40) == 100
    assert (
        reserved(20, 20, 20, 20, 20, -1, -3, 10, 20) == 100
    )  # two holes of 20: 10 goes into the first, 20 in the other


def test_small_blocks_have_pages_of_2_mib_of_their_own() -> None:
    assert reserved(1) == 2
    assert reserved(1, 1, 1) == 4
    assert reserved(0.5, 1.5) == 2 + 20
    assert reserved(20, -1, 1) == 20 + 2  # a small block never goes into a large hole


def test_classic_segments() -> None:
    assert reserved(1, expandable=False) == 2
    assert reserved(1.5, expandable=False) == 20  # below 10 MiB a segment of 20
    assert reserved(1.5, 9, expandable=False) == 20  # and the next goes into what is left
    assert reserved(11, expandable=False) == 12  # from 10 MiB on its own size, in whole 2 MiB
    assert reserved(11, 1.5, expandable=False) == 12 + 20  # 1 MiB is left, which is no use to large blocks
    assert reserved(15, -1, 11, 3, expandable=False) == 16  # 5 MiB left is
    assert reserved(12, 12, -1, -2, 24, expandable=False) == 48  # segments never merge
    assert reserved(12, 12, -1, -2, 24) == 40  # expandable ones do: 24 of the 40 mapped


def test_a_block_that_can_grow_is_taken_last() -> None:
    # free: 60 at 0, 15 at the tail of 100; 10 MiB fit best at the tail, but the tail may become larger, so they go below
    # and the 60 MiB that follow no longer fit there: 60 - 15 are mapped
    assert reserved(60, 25, -1, 10, 60) == 100 + 60
    assert reserved(60, 25, 10) == 100


def test_an_emptied_cache_gives_whole_pages_back_and_is_filled_from_below() -> None:
    from axoc_runtime.trace.allocator import reserved_bytes
    from axoc_runtime.trace.liveness import Event

    def then(*more: float) -> float:
        begun = events(50, 10, 40, -1)  # 50 MiB free at 0, used to 100
        last = [Event(10 + i, int(size * MIB), "") for i, size in enumerate(more)]
        return reserved_bytes([*begun, Event(0, 0, ""), *last]) / MIB

    assert then() == 100  # the highest it was; 40 MiB of pages went back, 10 at the end of the hole stay
    assert then(10) == 100
    assert then(40, 10) == 100  # back into the hole
    assert then(51) == 120  # does not fit: 60 left, and three pages at the tail


def test_peaks_that_are_reset_begin_with_what_is_reserved_then() -> None:
    from axoc_runtime.trace.allocator import reserved_bytes
    from axoc_runtime.trace.liveness import Event

    loaded = [*events(100, 20, -1), Event(0, 0, "")]
    more = [Event(10, 40 * MIB, "")]
    assert reserved_bytes([*loaded, *more]) / MIB == 120
    assert reserved_bytes([*loaded, *more], since=len(loaded)) / MIB == 60


def test_before_more_is_asked_of_a_full_device_free_pages_go_back() -> None:
    assert reserved(40, 20, -1, 60) == 120
    assert reserved(40, 20, -1, 60, limit=120) == 120
    assert reserved(40, 20, -1, 60, limit=100) == 80
    assert reserved(30, 10, -1, 60, limit=80) == 80  # 10 of the 30 MiB share a page with what is used, and stay
    assert reserved(20, 20, 20, -1, -3, 40, limit=60) == 60  # the hole behind them grows where memory went back
