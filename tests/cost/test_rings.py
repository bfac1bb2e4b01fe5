"""Collectives by ring and tree, hop by hop, against arithmetic done by hand with NCCL's own constants."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from asking import facts, request
from axoc.cost.mesh import Axis, nodes_spanned, ring_rate
from axoc.cost.meter import PARTS
from axoc.cost.overlap import SHARED, communication
from axoc.cost.rings import all_reduce_seconds, gather_seconds
from axoc.cost.scenario import Scenario
from axoc.cost.stragglers import SPREAD, slowest
from axoc.cost.time import step_time
from axoc.facts.links import NODES, kind_names, link_kind
from axoc.search.choose import scenarios
from meshes import row


def scenario(nodes: int, network: str = "infiniband-ndr", **changes: Any) -> Scenario:
    made = request("meta-llama/Meta-Llama-3-8B")
    found = scenarios(made, facts(made, f"h100-sxm-80gb:8x{nodes}"))[0][0].variant(0)
    cluster = replace(found.cluster, network_kind=network, **changes)
    return replace(found, cluster=cluster, min_unit_parameters=1)


def axis(ranks: int, stride: int = 1) -> Axis:
    return Axis(ranks=np.array([float(ranks)]), stride=np.array([float(stride)]))


def test_a_group_spans_as_many_nodes_as_it_must() -> None:
    s = scenario(4)
    assert [nodes_spanned(s, axis(*a))[0] for a in ((8, 1), (32, 1), (4, 8), (2, 4), (16, 2))] == [1, 4, 4, 1, 4]


def test_a_ring_takes_a_hop_for_each_rank_and_its_share_of_the_bytes() -> None:
    """32 ranks on 4 nodes: 28 hops inside and 3 between; few bytes by LL128 (14 us, 1.9 and 4 us a hop), many by Simple (8.4
    us, 3.4 and 14)."""
    s = scenario(4)
    little, much = np.array([1e3]), np.array([1e12])
    rate = ring_rate(s, axis(32))[0]
    assert gather_seconds(s, little, axis(32))[0] == pytest.approx(14e-6 + 28 * 1.9e-6 + 3 * 4e-6, rel=0.01)
    simple = 8.4e-6 + 28 * 3.4e-6 + 3 * 14e-6 + 1e12 * 31 / 32 / rate
    assert gather_seconds(s, much, axis(32))[0] == pytest.approx(simple)
    assert gather_seconds(s, much, axis(1))[0] == 0


def test_a_tree_sums_over_thousands_of_ranks_in_few_hops() -> None:
    """A ring of 16,384 takes 2 x 14,337 hops inside and 2 x 2,047 between; a tree 2 x 7 and 2 x 11."""
    s = scenario(2048)
    little = np.array([1e3])
    tree = 14e-6 + 2 * (7 * 1.25e-6 + 11 * 8.5e-6)
    assert all_reduce_seconds(s, little, axis(16384))[0] == pytest.approx(tree, rel=0.05)
    assert gather_seconds(s, little, axis(16384))[0] > 30e-3  # which no tree does: what makes plain sharding slow there


def test_many_bytes_are_summed_by_a_ring() -> None:
    s, much = scenario(4), np.array([1e12])
    twice = 2 * gather_seconds(s, much, axis(32))[0]
    assert all_reduce_seconds(s, much, axis(32))[0] == pytest.approx(twice, rel=0.001)


def test_kinds_of_networks_differ_in_rate_and_hops() -> None:
    much, little = np.array([1e11]), np.array([1e3])
    kinds = ("infiniband", "roce", "efa", "ethernet")
    for size in (much, little):
        found = [gather_seconds(scenario(8, kind), size, axis(64))[0] for kind in kinds]
        assert found == sorted(found) and found[0] < found[-1]
    own = scenario(8, "efa", network_efficiency=0.5, network_latency_seconds=1e-3)
    assert gather_seconds(own, little, axis(64))[0] > 7e-3
    assert ring_rate(own, axis(64))[0] == pytest.approx(0.5 * own.cluster.network_bandwidth_bytes_per_second)


def test_every_kind_has_a_source() -> None:
    for name in kind_names(NODES):
        assert link_kind(name).source and 0 < link_kind(name).efficiency <= 1


def test_what_is_hidden_slows_the_kernels_it_runs_beside_and_the_rest_is_waited_for() -> None:
    s = scenario(4)
    long, short = (communication(s, row(32), np.array([seconds])) for seconds in (10.0, 0.01))
    assert long["exposed communication"][0] < 0.2 * short["exposed communication"][0]
    assert short[SHARED][0] < long[SHARED][0]
    slow = scenario(4, "ethernet", network_bandwidth_bytes_per_second=1e9)
    assert communication(slow, row(32), np.array([1.0]))["exposed communication"][0] > 30


def test_the_slowest_of_many_sets_the_pace() -> None:
    assert slowest(1) == 0 and slowest(2) < slowest(8) < slowest(1024) < slowest(16384) < 5 * SPREAD
    assert slowest(500) == pytest.approx(3.05 * SPREAD, rel=0.01)  # half of the range that 500 draws span
    s = scenario(4)
    found = step_time(s, row(32)).breakdown
    computing = sum(found[part][0] for part in PARTS)
    assert found["waiting for the slowest accelerator"][0] == pytest.approx(slowest(32) * computing, rel=0.05)
