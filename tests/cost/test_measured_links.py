"""What a profile measured of collectives is used where the links are those of its machine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from asking import facts, request
from axoc.cost.measured_links import GATHERS, behind
from axoc.cost.mesh import Axis, ring_rate
from axoc.cost.rings import _gather, gather_seconds
from axoc.cost.scenario import Scenario
from axoc.search.choose import scenarios

PAIR = Axis(ranks=np.array([2.0]), stride=np.array([1.0]))
MUCH = np.array([1e12])


def h200(per_node: int, **changes: Any) -> Scenario:
    made = request("meta-llama/Meta-Llama-3-8B")
    found = scenarios(made, facts(made, f"h200-sxm-141gb:{per_node}x2"))[0][0].variant(0)
    return replace(found, cluster=replace(found.cluster, **changes))


def test_a_board_without_a_switch_keeps_its_own_rate() -> None:
    """A pair has one of three links; the profile was measured behind a switch."""
    board = h200(4, link_direct=True)
    assert gather_seconds(board, MUCH, PAIR)[0] == pytest.approx(0.5e12 / ring_rate(board, PAIR)[0], rel=1e-3)
    assert gather_seconds(board, MUCH, PAIR)[0] > 2.0 * gather_seconds(h200(4, link_direct=False), MUCH, PAIR)[0]


def test_what_was_measured_comes_out_again_and_more_ranks_stay_as_far_behind() -> None:
    """1 GiB on two ranks: 2.0344 ms gathered, 2.0335 ms scattered (facts/calibration/h200-sxm-141gb.json)."""
    size = np.array([float(1 << 30)])
    pair = gather_seconds(h200(8), size, PAIR)[0]
    assert pair == pytest.approx((2.0344272e-3 + 2.033544e-3) / 2, rel=1e-6)
    eight = gather_seconds(h200(8), size, Axis(ranks=np.array([8.0]), stride=np.array([1.0])))[0]
    assert eight == pytest.approx(pair * (7 / 8) / (1 / 2), rel=0.02)


def test_nodes_smaller_than_the_profiles_machine_are_not_compared_with_the_network() -> None:
    whole, alone = h200(8, nodes=1), h200(8, accelerators_per_node=1)
    size = np.array([float(1 << 28)])
    between = Axis(ranks=np.array([2.0]), stride=np.array([1.0]))
    assert behind(alone, _gather, GATHERS, size, between)[0] == 1.0, "the pair is on two nodes"
    assert behind(
        replace(whole, cluster=replace(whole.cluster, accelerators_per_node=1, nodes=1)),
        _gather,
        GATHERS,
        size,
        Axis(ranks=np.array([1.0]), stride=np.array([1.0])),
    )[0] == pytest.approx(behind(whole, _gather, GATHERS, size, PAIR)[0])
