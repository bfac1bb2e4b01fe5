"""Packs: every document in one of them, none too full, and as best fit decreasing has it; batches made of them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from axoc_runtime.objectives.packed import PackCollator
from axoc_runtime.preparation.lengths import padded_share, picture, summary
from axoc_runtime.preparation.packing import best_fit, packs
from hypothesis import given
from hypothesis import strategies as st

LENGTHS = st.integers(1, 40).flatmap(
    lambda capacity: st.tuples(st.just(capacity), st.lists(st.integers(1, capacity), max_size=120))
)


def one_by_one(lengths: list[int], capacity: int) -> list[int]:
    """Tokens of each pack of best fit decreasing as the books have it: each document looks at every pack."""
    found: list[list[int]] = []
    for length in sorted(lengths, reverse=True):
        fitting = [p for p in found if sum(p) + length <= capacity]
        if fitting:
            max(fitting, key=sum).append(length)
        else:
            found.append([length])
    return sorted(map(sum, found))


@given(drawn=LENGTHS, window=st.integers(1, 200))
def test_each_document_is_in_one_pack_and_no_pack_is_too_full(drawn: tuple[int, list[int]], window: int) -> None:
    capacity, lengths = drawn
    order, edges = packs(lengths, capacity, window)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    sums = [sum(lengths[i] for i in order[a:b]) for a, b in pairwise(edges)]
    assert all(0 < s <= capacity for s in sums) and sum(sums) == sum(lengths)
    for start in range(0, len(lengths), window):  # a window's documents share packs with no other's
        places = [k for k, i in enumerate(order) if start <= i < start + window]
        assert places == list(range(places[0], places[-1] + 1))


@given(drawn=LENGTHS)
def test_packs_are_those_of_best_fit_decreasing(drawn: tuple[int, list[int]]) -> None:
    """Documents of one length are placed together: that must change nothing but which of equally full packs is taken."""
    capacity, lengths = drawn
    pack_of = best_fit(np.asarray(lengths, np.int64), capacity)
    made = np.bincount(pack_of, weights=lengths).astype(int) if lengths else np.empty(0)
    assert sorted(made.tolist()) == one_by_one(lengths, capacity)


@pytest.mark.parametrize("capacity", [2048, 8192])
def test_chat_like_rows_fill_the_packs(capacity: int) -> None:
    drawn = np.random.default_rng(1).lognormal(np.log(300), 0.8, 20_000)
    lengths = np.clip(drawn.astype(np.int64), 1, capacity)
    _, edges = packs(lengths, capacity)
    assert lengths.sum() / (capacity * (len(edges) - 1)) > 0.995


def test_a_document_that_fits_no_pack_is_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        packs([3, 9], 8)
    with pytest.raises(ValueError, match="do not fit"):
        packs([0, 3], 8)


def document(start: int, length: int) -> dict[str, Any]:
    """Of ids from ``start`` on; all but the first two, one or none are learned."""
    ids = np.arange(start, start + length, dtype=np.int32)
    return {"input_ids": ids, "labels": np.where(np.arange(length) < start // 10 % 3, -100, ids).astype(np.int32)}


@given(lengths=st.lists(st.lists(st.integers(1, 8), min_size=1, max_size=2), min_size=1, max_size=3))
def test_a_batch_is_its_documents_and_padding(lengths: list[list[int]]) -> None:
    capacity, at_once = 16, 3
    items = [
        {"documents": [document(100 * k + 10 * i, n) for i, n in enumerate(pack)]} for k, pack in enumerate(lengths)
    ]
    batch = PackCollator(7, packs=at_once, capacity=capacity)(items)
    ends = batch["cu_seq_lens_q"].tolist()
    assert {k: tuple(batch[k].shape) for k in ("input_ids", "labels", "position_ids")} == dict.fromkeys(
        ("input_ids", "labels", "position_ids"), (1, at_once * capacity)
    )
    assert batch["cu_seq_lens_q"].dtype == torch.int32 and batch["cu_seq_lens_k"].tolist() == ends
    assert batch["max_length_q"] == batch["max_length_k"] == capacity and "attention_mask" not in batch
    documents = [d for item in items for d in item["documents"]]
    assert ends[0] == 0 and ends[-1] == at_once * capacity and max(np.diff(ends)) <= capacity and min(np.diff(ends)) > 0
    for d, start, end in zip(documents, ends, ends[1:], strict=False):
        assert batch["input_ids"][0, start:end].tolist() == d["input_ids"].tolist()
        assert batch["labels"][0, start:end].tolist() == [-100, *d["labels"][1:].tolist()]
        assert batch["position_ids"][0, start:end].tolist() == list(range(end - start))
    padded = ends[len(documents)]
    assert set(batch["input_ids"][0, padded:].tolist()) <= {7} and set(batch["labels"][0, padded:].tolist()) <= {-100}


def test_lengths_are_told_as_they_are() -> None:
    lengths = [1, 2, 2, 3, 10, 1000]
    found = summary(lengths)
    assert (found["rows"], found["tokens"], found["max"]) == (6, 1018, 1000)
    assert found["quantiles"] == {"p50": 2, "p90": 1000, "p99": 1000}
    assert sum(count for _, count in found["histogram"]) == 6
    assert all(sum(n <= upto for n in lengths) >= count for upto, count in found["histogram"])
    assert len(picture(found)) == 32 and picture(found)[0] == "█"


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5), rows=st.integers(1, 3))
def test_padding_to_be_expected(lengths: list[int], rows: int) -> None:
    """Against all micro-batches that can be drawn."""
    drawn = np.array(np.meshgrid(*[lengths] * rows)).reshape(rows, -1)
    computed = drawn.max(axis=0).sum() * rows
    assert padded_share(lengths, rows) == pytest.approx(1 - drawn.sum() / computed)
