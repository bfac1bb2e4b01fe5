"""The mesh of ranks: rings along its axes, units of blocks, hybrid shard, against arithmetic done by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from asking import facts, plan, request
from axoc.cost import communication
from axoc.cost.margin import _on_fewer
from axoc.cost.memory import memory
from axoc.cost.mesh import replicate_axis, ring_rate, shard_axis, tensor_axis
from axoc.cost.rings import latency_seconds
from axoc.cost.scenario import Scenario
from axoc.cost.units import LATENCY_SHARE, blocks_per_unit, min_unit_parameters
from axoc.facts.links import link_kind
from axoc.ir.plan import Plan
from axoc.search.choose import scenarios
from meshes import row

EIGHT_B = "meta-llama/Meta-Llama-3-8B"
SMALL = "Qwen/Qwen2.5-0.5B"


def scenario(model: str = EIGHT_B, inventory: str = "h100-sxm-80gb:8x4", **changes: Any) -> Scenario:
    made = request(model)
    return replace(scenarios(made, facts(made, inventory))[0][0].variant(0), **{"min_unit_parameters": 1} | changes)


def test_a_nodes_network_is_shared_by_the_rings_that_leave_it() -> None:
    """One ring of 32 neighbours has all of it; the eight rings of hybrid shard an eighth each; inside it is not used."""
    s = scenario()
    network = s.cluster.network_bandwidth_bytes_per_second * link_kind("efa").efficiency
    inside = s.cluster.accelerator.link_bandwidth_bytes_per_second * link_kind("nvlink").efficiency
    assert ring_rate(s, shard_axis(row(32)))[0] == pytest.approx(min(network, inside))
    assert ring_rate(s, replicate_axis(row(32, copies=4)))[0] == pytest.approx(network / 8)
    assert ring_rate(s, shard_axis(row(32, copies=4)))[0] == pytest.approx(inside)
    assert ring_rate(s, shard_axis(row(4, tensor=8)))[0] == pytest.approx(network / 8)


def test_links_of_its_own_for_each_pair_are_shared_by_no_one() -> None:
    """Four of eight accelerators without a switch have three of each one's seven links among them; all eight have all."""
    s = scenario(inventory="mi300x-192gb:8")
    assert s.cluster.link_direct
    whole = s.cluster.accelerator.link_bandwidth_bytes_per_second * link_kind("infinity-fabric").efficiency
    assert ring_rate(s, shard_axis(row(8)))[0] == pytest.approx(whole)
    assert ring_rate(s, tensor_axis(row(2, tensor=4)))[0] == pytest.approx(whole * 3 / 7)


def test_a_tensor_parallel_rank_gathers_whole_what_is_whole_on_it() -> None:
    """By hand, Llama 3 8B over two: half of each block's matrices and of the untied head, all of norms and embedding."""
    s, model = scenario(), scenario().model
    matrices = 2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336
    vocabulary, norms = model.vocab_size * 4096, (2 * 32 + 1) * 4096
    own = 32 * matrices / 2 + vocabulary + vocabulary / 2 + norms
    assert s.sizes.total == 32 * matrices + 2 * vocabulary + norms
    assert communication.gathered_bytes(s, row(4, tensor=2))[0] == pytest.approx(2 * own)
    assert communication.gathered_bytes(s, row(8))[0] == pytest.approx(2 * s.sizes.total)


def test_hybrid_shard_holds_what_a_node_alone_would() -> None:
    """States of a shard of 8, as on one node, and what was all-reduced beside the gradients while a backward runs."""
    s = scenario(dtype="float32")
    hybrid, node, flat = (memory(s, c).ledgers for c in (row(32, copies=4), row(8), row(32)))
    for item in ("weights", "optimizer states", "gradients"):
        assert (
            hybrid["optimizer"][item][0] == node["optimizer"][item][0] == pytest.approx(4 * flat["optimizer"][item][0])
        )
    more = hybrid["backward_last"]["reduction buffers"][0] - node["backward_last"]["reduction buffers"][0]
    assert more == pytest.approx(2 * s.trainable / 8)  # bf16, before it becomes float32


def test_hybrid_shard_pays_off_where_the_network_is_slow() -> None:
    s = scenario()
    slow = replace(s, cluster=replace(s.cluster, network_bandwidth_bytes_per_second=12.5e9))
    flat, hybrid = (communication.micro_step_seconds(slow, c)[0] for c in (row(32), row(32, copies=4)))
    assert hybrid < 0.6 * flat  # a copy crosses it once and a half, not three times; the rest stays inside a node


def test_offloaded_weights_come_up_twice_and_gradients_go_down_once_a_micro_step() -> None:
    """By hand: 8.03 billion float32 parameters over 8 ranks, three times over a link of 20 GB/s."""
    s = scenario(dtype="float32", inventory="h100-sxm-80gb:8")
    micro, step = communication.offload_seconds(s, row(8, offload="optimizer+parameters"))
    assert micro[0] == pytest.approx(3 * 4 * s.sizes.total / 8 / 20e9)
    assert step[0] == 0
    states = memory(s, row(8, offload="optimizer+parameters")).ledgers["optimizer"]
    assert states["weights"][0] == states["gradients"][0] == states["optimizer states"][0] == 0


def test_units_hide_the_latency_of_small_blocks_and_leave_large_ones_alone() -> None:
    small = scenario(SMALL, "h100-sxm-80gb:8", min_unit_parameters=None)
    (blocks,), (least,) = blocks_per_unit(small, row(8)), min_unit_parameters(small, row(8))
    block = small.sizes.blocks / 24
    assert (blocks - 1) * block < least <= blocks * block
    transfer = least * 2 * 7 / 8 / ring_rate(small, shard_axis(row(8)))[0]
    assert latency_seconds(small, shard_axis(row(8)))[0] / transfer == pytest.approx(LATENCY_SHARE)
    assert blocks_per_unit(scenario(EIGHT_B, "h100-sxm-80gb:8", min_unit_parameters=None), row(8))[0] == 1


def test_a_unit_is_gathered_and_reduced_as_a_whole() -> None:
    one, four = (scenario(SMALL, min_unit_parameters=n) for n in (1, 50_000_000))
    assert (blocks_per_unit(one, row(8))[0], blocks_per_unit(four, row(8))[0]) == (1, 4)
    block = one.sizes.block * 2
    found = [memory(s, row(8)).ledgers["backward_recompute"] for s in (one, four)]
    assert found[1]["gathered weights"][0] - found[0]["gathered weights"][0] == pytest.approx(2 * 3 * block)
    assert communication.micro_step_seconds(four, row(8))[0] < communication.micro_step_seconds(one, row(8))[0]


def test_units_are_decided_with_a_reason_and_kept_where_set() -> None:
    found = [
        plan(SMALL, "h100-sxm-80gb:8", distributed__type="fsdp", distributed__min_unit_parameters=n)
        for n in ("auto", 80_000_000)
    ]
    for result, blocks, source in zip(found, (4, 6), ("rule:units-by-parameters", "user"), strict=True):
        assert isinstance(result, Plan)
        decision = next(d for d in result.decisions if d.field == "distributed.min_unit_parameters")
        assert result.chosen.candidate.blocks_per_unit == blocks
        assert decision.source == source and f"{24 // blocks} units of {blocks} blocks" in decision.because


def test_tensor_parallel_and_hybrid_shard_are_planned_as_set() -> None:
    result = plan(
        EIGHT_B, "h100-sxm-80gb:8x2", distributed__type="fsdp", distributed__model_parallel_size=2,
        distributed__replicate_degree=2,
    )  # fmt: skip
    assert isinstance(result, Plan)
    chosen = result.chosen.candidate
    assert (chosen.data_parallel, chosen.tensor_parallel, chosen.replicate_degree) == (8, 2, 2)
    assert chosen.kernels == "none"


@pytest.mark.filterwarnings("error")
def test_copies_on_fewer_nodes_are_fewer_and_as_large() -> None:
    """What breaks first on fewer accelerators is asked of shards in whole numbers."""
    result = plan(EIGHT_B, "h100-sxm-80gb:8x16", distributed__type="fsdp", distributed__replicate_degree=16)
    assert isinstance(result, Plan)
    fewer = _on_fewer(row(128, copies=16), [128, 64, 8])
    assert fewer.replicate_degree.tolist() == [16, 8, 1] and set(fewer.shard_degree.tolist()) == {8}
