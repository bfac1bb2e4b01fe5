"""The tape, by hand: which gradients are added in place."""

from __future__ import annotations

import numpy as np
import pytest
from axoc.cost.tape import Tape

TOKENS = np.array([10.0])
BYTES = 2.0 * 4 * TOKENS[0]
"""Of a tensor of four elements a token, two bytes each."""


@pytest.mark.parametrize(("folded", "tensors"), [(False, 2), (True, 3)])
def test_a_views_gradient_is_added_to_in_a_third_tensor(folded: bool, tensors: int) -> None:
    """A value goes into two products of another width, whose outputs' gradients are nothing. While its own two meet there are two
    tensors, or three where the first is a view and so holds its base too."""
    t = Tape(TOKENS)
    value = t.value(4, 2.0)
    width = 1e-9  # of another width, and of no bytes to speak of
    for _ in range(2):
        made = t.apply(width, 2.0, [value], folded=folded, kind="linear")
        made.gradient = t.allocate(0.0)
    t.reset()
    before = float(np.max(t.live))
    last = made
    t.backward(last, t.allocate(0.0))
    assert float(np.max(t.top)) - before == pytest.approx(tensors * BYTES)


def test_the_top_after_the_first_matrix_has_its_gradient_leaves_out_what_was_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Backward: a wide scratch first, then a product with a trained weight, then a narrow scratch."""
    from axoc.cost.tape import Parameter

    t = Tape(TOKENS)
    value = t.value(4, 2.0)
    narrow = t.apply(4, 2.0, [value], scratch=100.0)
    product = t.apply(8, 2.0, [narrow], parameters=[Parameter(50.0, 50.0, False)], kind="linear", folded=True)
    wide = t.apply(8, 2.0, [product], scratch=10_000.0)
    t.reset()
    t.backward(wide, t.allocate(wide.size))
    assert t.top_after_product is not None
    assert float(np.max(t.top)) > 10_000.0 > float(np.max(t.top_after_product))


def test_gradients_of_parts_are_put_together_once() -> None:
    """Both parts' gradients, beside the tensor that is made of them; then it alone."""
    t = Tape(TOKENS)
    value = t.value(8, 2.0)
    first, second = t.split(value, 4, 4)
    first.gradient = t.allocate(BYTES)
    t.reset()
    before = float(np.max(t.live))
    t.backward(second, t.allocate(BYTES))
    assert float(np.max(t.top)) - before == pytest.approx(3 * BYTES)
    assert float(np.max(t.live)) - before == pytest.approx(BYTES)
    assert value.gradient is not None and not value.waiting
