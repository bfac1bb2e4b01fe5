"""What a profile measured of collectives is used where the links are those of its machine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from asking import facts, request
from axoc.cost.mesh import Axis, ring_rate
from axoc.cost.rings import gather_seconds
from axoc.cost.scenario import Scenario
from axoc.search.choose import all_passes

PAIR = Axis(ranks=np.array([2.0]), stride=np.array([1.0]))
MUCH = np.array([1e12])


def h200(per_node: int, **changes: Any) -> Scenario:
    made = request("meta-llama/Meta-Llama-3-8B")
    found = all_passes(made, facts(made, f"h200-sxm-141gb:{per_node}x2"))[0].costed.scenario.variant(0)
    return replace(found, cluster=replace(found.cluster, **changes))


def test_a_board_without_a_switch_keeps_its_own_rate() -> None:
    """A pair has one of three links; the profile was measured behind a switch."""
    board = h200(4, link_direct=True)
    assert gather_seconds(board, MUCH, PAIR)[0] == pytest.approx(0.5e12 / ring_rate(board, PAIR)[0], rel=1e-3)
    assert gather_seconds(board, MUCH, PAIR)[0] > 2.0 * gather_seconds(h200(4, link_direct=False), MUCH, PAIR)[0]
