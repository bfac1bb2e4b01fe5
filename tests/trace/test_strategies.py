"""What ranks share under DDP, FSDP2 and tensor parallelism, against sizes worked out by hand from torch's sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from .shapes import TIED
from .strategies import LORA, SHALLOW, WORKSPACES, numbers, run, sizes, up

pytestmark = pytest.mark.slow


def test_ddp_adds_a_copy_of_the_gradients_in_buckets_of_torchs_own_making(tmp_path: Path) -> None:
    import torch
    from axoc_runtime.trace.strategy import bucket_sizes

    total = sum(numbers())
    alone, several = (run(tmp_path, *what).phases["optimizer"] for what in (("single", 1), ("ddp", 4)))
    assert 4 * total <= several - alone <= 4 * total + 512 * 40
    large = [torch.nn.Parameter(torch.zeros(n, device="meta")) for n in (10_000_000, 3_000_000, 1_000_000, 100)]
    assert [n for n, _ in bucket_sizes(large)] == [1_000_100, 13_000_000]  # above 1 MiB, then above 25 MiB


def test_fsdp_splits_every_unit_and_gathers_one_at_a_time(tmp_path: Path) -> None:
    """fp32 shares of weights, gradients and two moments; a unit is gathered in bf16."""
    world, total = 4, sum(numbers())
    traced = run(tmp_path, "fsdp", world, model__dtype="float32")
    held = traced.phases["optimizer"] - WORKSPACES
    assert 16 * total / world <= held <= 16 * total / world + 4096 * 40
    block = 64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 160 + 2 * 64
    assert up(2 * block) in sizes(traced, "forward")  # all-gather of a block, in a stream of its own
    assert up(2 * block) not in sizes(traced, "forward", stream=0)
    back = [e for e in traced.events if e.phase.startswith("backward") and e.stream == 0]
    assert up(2 * block) in [e.num_bytes for e in back]  # reduce-scatter's input; its output is in a stream of its own


def test_a_unit_of_blocks_is_gathered_and_reduced_as_a_whole(tmp_path: Path) -> None:
    """Three blocks in bf16, and no gather of a single one."""
    traced = run(tmp_path, "fsdp", 4, settings={"blocks_per_unit": 3}, model__dtype="float32")
    block = 64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 160 + 2 * 64
    assert up(3 * 2 * block) in sizes(traced, "forward")
    assert up(2 * block) not in sizes(traced, "forward")
    back = [e for e in traced.events if e.phase.startswith("backward") and e.stream == 0]
    assert up(3 * 2 * block) in [e.num_bytes for e in back]


def test_copies_of_shards_hold_what_their_shards_would_alone(tmp_path: Path) -> None:
    """Eight ranks in two copies keep what four ranks keep; the backward has the all-reduced bf16 beside the gradients."""
    alone = run(tmp_path, "fsdp", 4, model__dtype="float32")
    hybrid = run(tmp_path, "fsdp", 8, copies=2, model__dtype="float32")
    assert hybrid.phases["optimizer"] == alone.phases["optimizer"]
    assert hybrid.phases["load"] == alone.phases["load"]
    last = [phase for phase in alone.phases if phase.startswith("backward")][-1]
    more = hybrid.phases[last] - alone.phases[last]
    blocks = 3 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 160 + 2 * 64)
    assert more == pytest.approx(2 * blocks / 4, rel=0.1)


def test_fsdp_with_accumulation_holds_its_share_of_the_gradients(tmp_path: Path) -> None:
    """The runtime has gradients reduced with each micro-batch; under accelerate's no_sync a rank would hold them whole."""
    one, two = (
        run(tmp_path, "fsdp", 4, training__gradient_accumulation_steps=n, training__gradient_checkpointing="full")
        for n in (1, 2)
    )
    carried = two.phases["forward"] - one.phases["forward"]
    assert 0 < carried < 1.2 * 4 * sum(numbers()) / 4


def test_a_tied_embedding_is_one_unit_with_the_head(tmp_path: Path) -> None:
    assert (
        run(tmp_path, "fsdp", 2, model={**TIED, "num_hidden_layers": 3}).phases["load"]
        < run(tmp_path, "fsdp", 2).phases["load"]
    )


def test_a_model_that_is_refused_under_fsdp_is_refused_in_words(tmp_path: Path) -> None:
    from axoc_runtime.errors import RuntimeFailure

    with pytest.raises(RuntimeFailure, match="scales its logits"):
        run(
            tmp_path,
            "fsdp",
            4,
            model={**SHALLOW, "model_type": "granite", "logits_scaling": 8.0},
            model__kernels="chunked",
        )


@pytest.mark.parametrize("tied", [False, True])
def test_tensor_parallel_ranks_hold_parts_of_what_the_runtime_splits(tmp_path: Path, tied: bool) -> None:
    """strategies/tensor.py: the linear layers and the head by rows of the vocabulary, with it a tied embedding; an untied
    one and all norms stay whole."""
    model = {**SHALLOW, "tie_word_embeddings": tied}
    one, two = (run(tmp_path, "fsdp", 2, tensor, model=model) for tensor in (1, 2))
    linear = 3 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 160) + 512 * 64
    saved = one.phases["load"] - two.phases["load"]
    assert abs(saved - 4 * linear / 2 / 2) < 512 * 8
    assert two.phases["forward"] < one.phases["forward"]


def test_a_vocabulary_that_does_not_divide_stays_whole(tmp_path: Path) -> None:
    odd, even = (run(tmp_path, "fsdp", 2, 2, model={**SHALLOW, "vocab_size": n}).phases["load"] for n in (511, 512))
    assert abs(odd - even - 4 * 512 * 64 / 2 / 2) < 512 * 8


def test_fsdp_multiplies_adapters_in_bfloat16_and_gathers_the_head_for_a_fused_loss(tmp_path: Path) -> None:
    """The loss reads the head's weight without a call of the head: it is whole only if the norm before it gathers it."""
    from axoc_runtime.strategies import units

    wanted = {"adapter": LORA, "model__dtype": "bfloat16", "model__kernels": "liger"}
    low = run(tmp_path, "fsdp", 2, **wanted)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units, "adapts_low_weights", lambda job: False)
        high = run(tmp_path, "fsdp", 2, **wanted)
    assert max(low.phases.values()) < max(high.phases.values())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units, "final_norm", units.FIND_FINAL_NORM)
        with pytest.raises(Exception, match="DTensor"):
            run(tmp_path, "fsdp", 2, **wanted)
