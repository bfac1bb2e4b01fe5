"""The held-out split: no row on both sides, independent of order, and as large as asked."""

from __future__ import annotations

import math

from axoc_runtime.ingest.split import held_out_keys, row_key, weighted
from hypothesis import given
from hypothesis import strategies as st

KEYS = st.lists(st.integers(0, 1 << 56), min_size=2, max_size=200)
SHARE = st.floats(0.001, 0.9)


@given(keys=KEYS, share=SHARE)
def test_order_does_not_matter_and_something_is_left_to_train_on(keys: list[int], share: float) -> None:
    held = held_out_keys(keys, share)
    assert held.tolist() == held_out_keys(sorted(keys), share).tolist()
    if len(set(keys)) > 1:
        assert len(held) and set(keys) - set(held.tolist())


@given(keys=st.lists(st.integers(0, 1 << 56), min_size=2, max_size=200, unique=True), share=SHARE)
def test_as_many_rows_are_trained_on_as_the_planner_counts(keys: list[int], share: float) -> None:
    left = len(keys) - len(held_out_keys(keys, share))
    assert left == max(1, min(math.floor(len(keys) * (1 - share)), len(keys) - 1))


@given(keys=KEYS, share=SHARE, new=st.integers(0, 1 << 56))
def test_a_new_row_moves_at_most_one_other(keys: list[int], share: float, new: int) -> None:
    before, after = (set(held_out_keys(k, share).tolist()) for k in (keys, [*keys, new]))
    assert len((before ^ after) - {new}) <= 2


def test_nothing_is_held_out_unless_asked_for() -> None:
    assert held_out_keys([1, 2, 3], 0.0).tolist() == []
    assert held_out_keys([1], 0.5).tolist() == []


def test_keys_depend_on_the_row_and_the_seed_alone() -> None:
    assert row_key({"a": 1, "b": "é"}, 42) == row_key({"b": "é", "a": 1}, 42)
    assert row_key({"a": 1}, 42) != row_key({"a": 1}, 43)
    assert row_key({"question": "q", "answer": "a"}, 42) == 30910256536043417, "a split must never change by itself"


def test_weights_repeat_whole_and_sample_the_rest() -> None:
    keys = [50, 10, 40, 20]
    assert weighted([0, 1, 2, 3], keys, 1.0).tolist() == [0, 1, 2, 3]
    assert weighted([0, 1, 2, 3], keys, 0.5).tolist() == [1, 3]
    assert weighted([0, 1, 2, 3], keys, 2.25).tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 1]


@given(keys=st.lists(st.integers(0, 20), min_size=2, max_size=300), share=SHARE)
def test_rows_that_share_a_key_are_counted_as_rows(keys: list[int], share: float) -> None:
    """A document of many windows, or a row that is there often: the share is of rows, to within one key's rows."""
    held = set(held_out_keys(keys, share).tolist())
    rows = sum(key in held for key in keys)
    wanted = max(1, len(keys) - math.floor(len(keys) * (1 - share)))
    largest = max(keys.count(k) for k in keys)
    assert rows < wanted + largest
