"""The rows of an optimizer step are the same however many ranks share it."""

from __future__ import annotations

import pytest
from accelerate.data_loader import BatchSamplerShard
from axoc_runtime.checkpoint.rows import StepRows
from torch.utils.data import BatchSampler

GLOBAL = 8


def steps_of(rows: int, ranks: int, micro: int, epoch: int) -> list[list[int]]:
    """What the ranks see together in each step of an epoch, as accelerate deals it."""
    drawn = StepRows(rows, GLOBAL, 7, lambda: epoch * -(-rows // GLOBAL))
    seen = [list(BatchSamplerShard(BatchSampler(drawn, micro, drop_last=False), ranks, rank)) for rank in range(ranks)]
    accumulation = GLOBAL // (micro * ranks)
    assert all(len(batches) == drawn.steps * accumulation for batches in seen)
    return [
        sorted(i for batches in seen for batch in batches[s * accumulation : (s + 1) * accumulation] for i in batch)
        for s in range(drawn.steps)
    ]


@pytest.mark.parametrize("rows", [3, 8, 90, 91])
@pytest.mark.parametrize("epoch", [0, 1])
def test_at_any_number_of_ranks_and_any_micro_batch(rows: int, epoch: int) -> None:
    alone = steps_of(rows, 1, 8, epoch)
    for ranks, micro in ((1, 1), (2, 1), (2, 4), (4, 1), (4, 2), (8, 1)):
        assert steps_of(rows, ranks, micro, epoch) == alone
    assert {i for step in alone for i in step} == set(range(rows))


def test_each_epoch_is_drawn_anew_and_each_seed_otherwise() -> None:
    assert steps_of(90, 2, 1, 0) != steps_of(90, 2, 1, 1)
    assert list(StepRows(90, GLOBAL, 7, lambda: 0)) != list(StepRows(90, GLOBAL, 8, lambda: 0))
