"""Which rows make up which optimizer step: the same whatever the ranks, the micro-batch and the step that a run goes on from."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch.utils.data import Sampler


class StepRows(Sampler[int]):
    """An epoch's rows in an order drawn from seed and epoch; step s of the epoch takes rows s x G to (s + 1) x G of it,
    G being the global batch.

    accelerate deals micro-batches to the ranks in turn, so that the rows of a step are consecutive rows of this order
    (data_loader.py: ``BatchSamplerShard``). An epoch's last step is filled up with the epoch's first rows to a whole global
    batch: accelerate fills up to micro-batch x ranks, which at another number of ranks would be other rows. The epoch
    comes from the steps that are done: samplers that count epochs themselves start from 0 in a resumed process.
    """

    def __init__(self, rows: int, global_batch: int, seed: int, steps_done: Callable[[], int]) -> None:
        self.rows, self.global_batch, self.seed, self.steps_done = rows, global_batch, seed, steps_done

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return -(-self.rows // self.global_batch)

    def __len__(self) -> int:
        return self.steps * self.global_batch

    def __iter__(self) -> Iterator[int]:
        draw = torch.Generator().manual_seed(self.seed + self.steps_done() // self.steps)
        order = torch.randperm(self.rows, generator=draw).tolist()
        return (order[i % self.rows] for i in range(len(self)))
