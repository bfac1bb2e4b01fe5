"""ZeRO-3's gathered weights, by hand: what is fetched ahead, kept for the backward, and let go of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from axoc.cost import fetches
from axoc.cost.fetches import gathered

BLOCK = ((100,), (200,), (300,))
PLAIN: dict[str, Any] = {"tied": False, "external": False, "carries": False, "trained": True, "saves": False}


@pytest.fixture(autouse=True)
def limits(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, int], None]]:
    """(a prefetch bucket, live weights and the reach of reuse), in elements; 0 of each unless a test says otherwise."""

    def put(bucket: int, live: int) -> None:
        monkeypatch.setattr(fetches, "GATHER_ELEMENTS", bucket)
        monkeypatch.setattr(fetches, "LIVE_ELEMENTS", live)
        gathered.cache_clear()

    put(0, 0)
    yield put
    gathered.cache_clear()


def test_with_nothing_ahead_a_module_has_its_own_weights_alone() -> None:
    found = gathered((BLOCK,) * 4, 1000, 900, **PLAIN)
    assert (found.forward, found.head, found.loss, found.first, found.bottom) == (300, 900, 900, 300, 300)
    assert (found.embedding, found.evaluated, found.evaluated_inside) == (1000, 900, 300)


def test_what_a_backward_uses_within_reach_is_kept(limits: Callable[[int, int], None]) -> None:
    """The last module is used again after the head's 900 twice, the one before after those and 300 twice: 2,400. The first one is
    800 farther."""
    limits(0, 2500)
    found = gathered((BLOCK,) * 4, 1000, 900, **PLAIN)
    assert found.loss == 900 + 300 + 200
    assert found.first == 300 + 200


def test_a_bucket_more_is_fetched_ahead(limits: Callable[[int, int], None]) -> None:
    """Until the bucket is full, of whole parameters: while the last block's 100 runs, its 200 and 300 are on their way."""
    limits(250, 3000)
    found = gathered((BLOCK,) * 4, 5000, 5000, **PLAIN)
    assert found.forward >= 100 + 500
    limits(0, 3000)
    assert gathered((BLOCK,) * 4, 5000, 5000, **PLAIN).forward == 300


def test_a_head_that_is_read_outside_its_module_stays_until_the_step() -> None:
    found = gathered((BLOCK,) * 4, 1000, 900, **PLAIN | {"external": True})
    assert (found.forward, found.head, found.first, found.bottom, found.embedding) == (1200, 900, 1200, 1200, 1900)


def test_weights_of_one_module_are_there_twice_while_they_are_copied_out() -> None:
    """Experts: 400 and 500 in one module. What autograd saves of them is counted with activations."""
    block = ((100,), (400, 500))
    found = gathered((block,) * 3, 10, 20, **PLAIN)
    assert (found.first, found.first_top) == (900, 1800)
    saved = gathered((block,) * 3, 10, 20, **PLAIN | {"saves": True})
    assert saved.forward == 100 and saved.first == 900


def test_frozen_embeddings_have_no_backward() -> None:
    assert gathered((BLOCK,) * 4, 1000, 900, **PLAIN | {"trained": False}).embedding == 0


def test_a_recomputed_block_keeps_what_its_backward_uses(limits: Callable[[int, int], None]) -> None:
    """Its modules stand in the order twice: the 200 are used again after the 300 twice, which is within reach."""
    limits(0, 650)
    plain = gathered((BLOCK,) * 4, 1000, 900, **PLAIN)
    again = gathered((BLOCK,) * 4, 1000, 900, **PLAIN, recomputed=4)
    assert (plain.first, plain.bottom) == (300, 300)
    assert (again.first, again.bottom) == (500, 500)


def test_experts_that_came_ahead_are_autograd_s_once_they_ran(limits: Callable[[int, int], None]) -> None:
    """All is gathered ahead; what a view holds is counted with activations from then on, and not with what is gathered."""
    limits(1_000_000, 1_000_000)
    block = ((100,), (400, 500))
    held = gathered((block,) * 3, 10, 20, **PLAIN)
    saved = gathered((block,) * 3, 10, 20, **PLAIN | {"saves": True})
    assert held.head - saved.head == 3 * 900
