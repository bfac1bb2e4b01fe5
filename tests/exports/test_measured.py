"""What a consumer is measured by, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from axoc_runtime.exports.base import NONE, CannotExport, Logits
from axoc_runtime.exports.measure import BOUNDS, Reference, bound_of, check, measure
from axoc_runtime.exports.texts import Text, within
from hypothesis import given
from hypothesis import strategies as st

WIDTH = 7


class Table:
    """A consumer that gives what it was given, ``wide`` columns of padding behind."""

    name = "table"

    def __init__(self, logits: Logits, wide: int = 0) -> None:
        self.found = np.pad(logits, ((0, 0), (0, wide)), constant_values=-1e4)

    def logits(self, ids: Sequence[int]) -> Logits:
        return self.found[: len(ids)]


def reference(seed: int = 0, tokens: int = 20) -> Reference:
    drawn = np.random.default_rng(seed)
    logits = drawn.normal(size=(tokens, WIDTH)).astype(np.float32)
    ids = tuple(int(i) for i in drawn.integers(0, WIDTH, tokens))
    text = Text(ids=ids, counted=(False, False, *(True,) * (tokens - 2)))
    shifted = logits[1:-1].astype(np.float64)
    chosen = np.log(np.exp(shifted).sum(-1)) - shifted[np.arange(tokens - 2), ids[2:]]
    return Reference(texts=(text,), logits=(logits,), perplexity=math.exp(chosen.mean()))


def test_the_same_logits_are_the_same_model() -> None:
    wanted = reference()
    found = measure(wanted, Table(wanted.logits[0]))
    assert found.perplexity == pytest.approx(wanted.perplexity, rel=1e-9)
    assert (found.logits_difference, found.same_top_token) == (0.0, 1.0)
    check(found, NONE)


def test_only_tokens_that_count_are_in_the_perplexity() -> None:
    wanted = reference()
    changed = wanted.logits[0].copy()
    changed[0] = 50.0 * np.eye(WIDTH, dtype=np.float32)[0]  # predicts the second token, which does not count
    changed[-1] = changed[0]  # predicts nothing that is there
    assert measure(wanted, Table(changed)).perplexity == pytest.approx(wanted.perplexity, rel=1e-9)


def test_a_padded_vocabulary_is_the_same_and_a_cut_one_is_refused() -> None:
    wanted = reference()
    assert measure(wanted, Table(wanted.logits[0], wide=9)).logits_difference == 0.0
    with pytest.raises(CannotExport, match="logits have the shape"):
        measure(wanted, Table(wanted.logits[0][:, :-1]))


@pytest.mark.parametrize("variant", [NONE, "q4_k_m", "fp8"])
def test_beyond_its_bound_an_export_is_refused(variant: str) -> None:
    wanted = reference()
    flat = Table(np.zeros_like(wanted.logits[0]))
    assert wanted.perplexity is not None
    if abs(WIDTH / wanted.perplexity - 1) > bound_of(variant):
        with pytest.raises(CannotExport, match="is allowed"):
            check(measure(wanted, flat), variant)
    else:
        pytest.fail("the case does not test anything")


def test_other_logits_of_the_same_perplexity_are_refused_too() -> None:
    wanted = reference()
    twice = measure(wanted, Table(wanted.logits[0] + 3.0))  # a constant changes no probability
    assert twice.perplexity_difference == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(CannotExport, match="logits"):
        check(twice, NONE)


def test_coarser_quantizations_have_wider_bounds() -> None:
    order = ["q8_0", "q6_k", "q5_k_m", "q4_k_m", "q3_k_m", "q2_k"]
    assert [BOUNDS[q] for q in order] == sorted(BOUNDS[q] for q in order)


@given(st.lists(st.integers(2, 50), min_size=1, max_size=8), st.integers(0, 200))
def test_texts_are_cut_to_a_number_of_tokens_and_never_to_nothing(lengths: list[int], tokens: int) -> None:
    texts = [Text(ids=tuple(range(n)), counted=(True,) * n) for n in lengths]
    kept = within(texts, tokens)
    assert kept and all(len(t.ids) >= 2 and len(t.ids) == len(t.counted) for t in kept)
    assert sum(len(t.ids) for t in kept) <= max(tokens, 2)
    assert all(text.ids[: len(k.ids)] == k.ids for text, k in zip(texts, kept, strict=False))
