"""What ranks share under ZeRO, and what lies on the host, against sizes worked out by hand from the sources of DeepSpeed and torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .shapes import LLAMA, TIED, job
from .strategies import LORA, WORKSPACES, distributed, numbers, once, run, sizes, up

pytestmark = pytest.mark.slow
SMALL = {"stage": 0, "reduce_bucket_size": 20_000}


@pytest.mark.parametrize("stage", [1, 2])
def test_zero_splits_states_and_keeps_weights_whole(tmp_path: Path, stage: int) -> None:
    """A flat bf16 group of weights on each rank; an fp32 master and two moments of its share."""
    total = sum(numbers())
    for world in (1, 4):
        traced = once(tmp_path, f"zero{stage}", world, settings=SMALL)
        held = traced.phases["forward"]  # of the second step: states are there
        states = 2 * total + 12 * total / world
        activations = once(tmp_path, f"zero{stage}", 64, settings=SMALL).phases["forward"] - 2 * total - 12 * total / 64
        assert abs(held - states - activations) < 0.02 * total, world


def test_zeros_bucket_is_made_whole_with_the_first_gradient(tmp_path: Path) -> None:
    """setup_buckets: reduce_bucket_size elements of the module's dtype, once more where reductions overlap."""
    buffer = up(2 * 20_000)
    assert sizes(once(tmp_path, "zero2", 4, settings=SMALL)).count(buffer) == 2  # a step each
    twice = once(tmp_path, "zero2", 4, settings={**SMALL, "overlap_comm": True})
    assert sizes(twice).count(buffer) == 4
    assert sizes(once(tmp_path, "zero1", 4)).count(2 * 500_000_000) == 2  # DeepSpeed's default


def test_zero_one_keeps_all_gradients_until_they_are_reduced_and_zero_two_its_own(tmp_path: Path) -> None:
    """copy_grads_in_partition: a buffer of the parameters that touch this rank's share."""
    total = sum(numbers())
    one, two = (once(tmp_path, f"zero{s}", 8, settings=SMALL).phases for s in (1, 2))
    saved = one["backward_last"] - two["backward_last"]
    assert 0.5 * 2 * total < saved < 2 * total
    alone = once(tmp_path, "zero2", 1, settings=SMALL)
    assert up(2 * total) in [e.num_bytes for e in alone.events if e.phase.startswith("backward")]


def test_a_bucket_for_several_ranks_is_copied_and_one_for_a_single_rank_is_not() -> None:
    """allreduce_and_scatter: neighbouring slices for one rank are one, which flatten returns as it is."""
    import torch
    from axoc_runtime.trace.zero_1_2 import Bucket, Group, ZeroOneTwo

    made = ZeroOneTwo.__new__(ZeroOneTwo)
    first, second = torch.zeros(60), torch.zeros(60)
    for share, expected in ((120, [120]), (30, [30, 30, 30, 30]), (80, [80, 40])):
        group = Group(
            parameters=[first, second],
            master=torch.zeros(share),
            low=torch.zeros(share),
            starts={id(first): 0, id(second): 60},
            mine=[],
            begin=0,
        )
        made.group_of = {id(first): group, id(second): group}
        made.bucket = Bucket(parameters=[first, second])
        assert made._slices() == expected


def test_zero_three_pads_each_parameter_to_the_ranks_and_holds_its_buffers_from_the_start(tmp_path: Path) -> None:
    """Shares of weights in bf16, masters and moments in fp32, this rank's gradients in one buffer, and the bucket."""
    world = 3
    share = sum(-(-n // world) for n in numbers())
    traced = once(tmp_path, "zero3", world, settings=SMALL)
    assert traced.phases["optimizer"] >= share * (2 + 4 + 8 + 2) + 2 * 20_000
    assert sizes(traced, "load").count(up(2 * share)) >= 2  # the weights' buffer and the gradients'
    assert up(2 * 20_000) in sizes(traced, "load")


def gathered(traced: Any) -> int:
    """The most bytes that were gathered at once."""
    now = most = 0
    homes: dict[int, int] = {}
    for event in traced.events:
        if event.num_bytes > 0 and event.stream == 1:
            homes[event.block] = event.num_bytes
            now += event.num_bytes
            most = max(most, now)
        elif event.num_bytes < 0:
            now -= homes.pop(event.block, 0)
    return most


def test_zero_three_gathers_no_more_than_it_may_keep(tmp_path: Path) -> None:
    """What is used again soon stays gathered, and the rest is let go."""
    tight = {**SMALL, "stage3_max_reuse_distance": 0, "stage3_prefetch_bucket_size": 0}
    tight["stage3_param_persistence_threshold"] = 0
    much, little = (gathered(once(tmp_path, "zero3", 4, settings=s)) for s in (SMALL, tight))
    whole, largest = 2 * sum(numbers()), 2 * max(numbers())
    assert whole <= much <= 2 * whole
    assert largest <= little < 1.2 * largest  # what autograd saved must not keep the rest
    assert gathered(once(tmp_path, "zero3", 1, settings=SMALL)) == 0  # one rank has all it needs


def test_zero_threes_gathers_of_several_are_copied_out_of_one_buffer(tmp_path: Path) -> None:
    """_all_gather_dtype, AllGatherCoalescedHandle.wait: for a moment they are there twice."""
    ahead = {**SMALL, "stage3_max_reuse_distance": 0, "stage3_prefetch_bucket_size": 10_000}
    gathered = sizes(once(tmp_path, "zero3", 4, settings=ahead), "forward", stream=1)
    block = [4096, 2048, 2048, 4096, 10240, 10240, 10240]
    assert any(up(2 * sum(block[i:j])) in gathered for i in range(7) for j in range(i + 2, 8))


@pytest.mark.parametrize("strategy", ["zero1", "zero2", "zero3"])
def test_deepspeed_runs_without_autocast_in_one_dtype(tmp_path: Path, strategy: str) -> None:
    """Adapters and norms too are in bf16: with LoRA nothing trained is in fp32 but masters and moments."""
    adapted = once(tmp_path, strategy, 2, settings=SMALL, adapter=LORA, model__dtype="bfloat16")
    full = once(tmp_path, strategy, 2, settings=SMALL, model__dtype="bfloat16")
    assert adapted.phases["optimizer"] < full.phases["optimizer"]


@pytest.mark.parametrize(("parameters", "fullest"), [((10, 10, 80), 0), ((80, 10, 10), 1), ((50, 50), 1)])
def test_the_fullest_rank_is_the_one_whose_share_touches_most(parameters: tuple[int, ...], fullest: int) -> None:
    """Two ranks; the large parameter crosses the border, so both copy it whole, and one the small ones too."""
    import torch
    from axoc_runtime.trace.zero_1_2 import ZeroOneTwo

    made = ZeroOneTwo.__new__(ZeroOneTwo)
    made.world = 2
    made.optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(n)) for n in parameters], lr=0.1)
    assert made._fullest() == fullest


def test_zero_twos_last_rank_makes_its_buffer_first_and_either_may_be_the_fullest(tmp_path: Path) -> None:
    """The buffer is the largest thing of a backward here."""
    from axoc_runtime.trace.device import DEVICES
    from axoc_runtime.trace.extrapolate import trace
    from axoc_runtime.trace.step import trace_depth

    (tmp_path / "config.json").write_text(json.dumps({"zero_optimization": SMALL}))
    tied = {**TIED, "num_hidden_layers": 4}
    made = job(tmp_path, tied, distributed=distributed("zero2", 2, config="config.json"), training__micro_batch_size=1)
    ranks = {rank: trace_depth(made, tied, DEVICES["h100"], 1, rank=rank) for rank in ("last", "fullest")}
    came = {
        rank: max((e for e in found.events if "backward" in e.phase), key=lambda e: e.num_bytes).phase
        for rank, found in ranks.items()
    }
    assert came == {"last": "backward_first", "fullest": "backward_middle"}
    whole = trace(made, tied).phases
    assert whole == {name: max(found.phases[name] for found in ranks.values()) for name in whole}
    assert whole["backward_first"] == ranks["last"].phases["backward_first"] > ranks["fullest"].phases["backward_first"]


def offloaded(folder: Path, strategy: str, data: int, offload: str = "optimizer") -> Any:
    own = {"stage3_param_persistence_threshold": 0} if strategy == "zero3" else {"round_robin_gradients": True}
    return once(folder, strategy, data, settings=SMALL | own, offload=offload)


def test_zero_two_with_its_optimizer_on_the_host_holds_weights_and_room_for_one_gradient(tmp_path: Path) -> None:
    """temp_grad_buffer_for_gpu_offload; the norm of a rank's slice of a gradient is of an fp64 copy."""
    each, world = numbers(), 4
    traced = offloaded(tmp_path, "zero2", world)
    own = traced.phases["optimizer"] - 2 * sum(each) - 2 * max(each) - WORKSPACES
    assert 0 <= own < 20_000  # the model's own buffers, and rounding up to blocks
    slices = [n for n in sizes(traced) if n == up(8 * min(max(each), sum(each) // world))]
    assert slices, "no rank copies its slice"


@pytest.mark.parametrize(("offload", "on_device"), [("optimizer", 2), ("optimizer+parameters", 0)])
def test_zero_three_with_states_on_the_host_holds_its_bucket_and_perhaps_its_share(
    tmp_path: Path, offload: str, on_device: int
) -> None:
    """A gradient's part is fetched back, normed in fp64 and copied in fp32."""
    world = 3
    shares = [-(-n // world) for n in numbers()]
    traced = offloaded(tmp_path, "zero3", world, offload)
    own = traced.phases["optimizer"] - on_device * sum(shares) - 2 * 20_000 - WORKSPACES
    assert 0 <= own < 20_000  # the model's own buffers, and rounding up to blocks
    backward = [e.num_bytes for e in traced.events if e.phase.startswith("backward")]
    assert {up(n * max(shares)) for n in (2, 4, 8)} <= set(backward)


def test_parameters_on_the_host_are_copied_beside_each_gather(tmp_path: Path) -> None:
    there, away = (offloaded(tmp_path, "zero3", 3, o) for o in ("optimizer", "optimizer+parameters"))
    share = up(2 * -(-max(numbers()) // 3))
    assert sizes(away, "forward", stream=1).count(share) > sizes(there, "forward", stream=1).count(share)


@pytest.mark.parametrize(("rows", "number"), [(12, 4), (10, 4), (9, 4), (3, 4), (1, 8), (8, 1)])
def test_pieces_of_a_parameter_are_torchs_chunks(rows: int, number: int) -> None:
    import torch
    from axoc_runtime.trace.fsdp import Pieces

    whole = torch.arange(rows * 2).view(rows, 2)
    there, pieces = torch.chunk(whole, number), Pieces(whole, number, 0)
    for rank in range(number):
        assert torch.equal(pieces[rank], there[rank] if rank < len(there) else whole.new_empty(0))


def test_fully_sharded_weights_on_the_host_leave_the_device_between_their_uses(tmp_path: Path) -> None:
    """CPUOffloadPolicy: shards in fp32 are copied before they are cast and gathered, reduced gradients leave, and states and the
    norm are on the host."""
    world = 4
    there, away = (
        once(tmp_path, "fsdp", world, offload=o, training__gradient_accumulation_steps=2)
        for o in ("none", "optimizer+parameters")
    )
    shares = [-(-n // world) for n in numbers()]
    assert there.phases["optimizer"] - away.phases["optimizer"] >= 16 * sum(shares)
    assert away.phases["load"] < 20_000  # the model's own buffers
    assert away.phases["optimizer"] - away.phases["load"] - WORKSPACES < up(4 * sum(shares))
    assert sizes(away, "optimizer") == []
    share = up(4 * max(shares))
    assert sizes(away, "forward").count(share) > sizes(there, "forward").count(share)
    born = {e.block for e in away.events if e.num_bytes > 0}
    died = {e.block for e in away.events if e.num_bytes < 0}
    assert died <= born, "what is on the host was freed on the device"


def test_settings_that_are_not_modelled_are_refused(tmp_path: Path) -> None:
    from axoc_runtime.errors import RuntimeFailure

    with pytest.raises(RuntimeFailure, match="ZeRO with contiguous_gradients: False cannot be traced"):
        run(tmp_path, "zero2", 2, settings={**SMALL, "contiguous_gradients": False})
    with pytest.raises(RuntimeFailure, match="tensor parallelism under ddp cannot be traced"):
        run(tmp_path, "ddp", 2, 2)
    with pytest.raises(RuntimeFailure, match="offload to the host under ddp cannot be traced yet"):
        offloaded(tmp_path, "ddp", 2)


def test_auto_is_what_transformers_makes_of_it(tmp_path: Path) -> None:
    from axoc_runtime.trace.zero import zero_settings

    (tmp_path / "d.json").write_text(
        json.dumps(
            {
                "zero_optimization": dict.fromkeys(
                    ("reduce_bucket_size", "stage3_prefetch_bucket_size", "stage3_param_persistence_threshold"), "auto"
                )
            }
        )
    )
    found = zero_settings(job(tmp_path, LLAMA, distributed=distributed("zero3", 2, config="d.json")), 64)
    assert (found.reduce_bucket, found.prefetch, found.persistence) == (4096, 3686, 640)
