"""Streamed rows for a Trainer: each rank reads, encodes and packs its own windows, ahead of the step that needs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from axoc_runtime.errors import RuntimeFailure
from axoc_runtime.job import Job
from axoc_runtime.preparation.digest import digest_of
from axoc_runtime.preparation.stream import Journal, Listing, Windows, items
from axoc_runtime.strategies import data_rank


class Streamed(IterableDataset[Any]):
    """Items of this rank, after those of the steps that are done when it is iterated."""

    def __init__(self, job: Job, tokenizer: Any) -> None:
        self.job, self.tokenizer = job, tokenizer
        self.steps_done: Callable[[], int] = lambda: 0

    def __iter__(self) -> Iterator[Any]:
        training, ranks, rank = self.job.training, self.job.distributed.data_parallel, data_rank(self.job)
        folder = self.job.output / ".prepared" / f"stream-{digest_of(self.job, content=False)[:16]}"
        journal = Journal(folder / f"windows-{rank}-of-{ranks}.txt")
        done = self.steps_done() * training.gradient_accumulation_steps * training.micro_batch_size
        windows = Windows(self.job, self.tokenizer, rank=rank, ranks=ranks)
        try:
            yield from items(windows, journal, done, Listing(self.job, rank=rank, ranks=ranks))
        except RuntimeFailure as failure:  # a loader's process would make a stack trace of it
            yield failure


class StreamLoader:
    """A DataLoader that accelerate does not deal out: it would send one rank's batches to all, or have all read all."""

    def __init__(self, job: Job, rows: Streamed, collate: Any) -> None:
        on_gpu = job.distributed.device != "cpu"
        ahead: dict[str, Any] = {"num_workers": 1, "prefetch_factor": 8} if on_gpu else {}
        self.batch_size = job.training.micro_batch_size
        self.dataset = rows
        self._loader = DataLoader(
            rows, batch_size=self.batch_size, collate_fn=Collated(collate), pin_memory=on_gpu, **ahead
        )

    def __iter__(self) -> Iterator[Any]:
        for batch in self._loader:
            if isinstance(batch, RuntimeFailure):
                raise batch
            yield batch


class Collated:
    """A batch, or the failure that is among its items."""

    def __init__(self, collate: Any) -> None:
        self.collate = collate

    def __call__(self, found: list[Any]) -> Any:
        failure = next((item for item in found if isinstance(item, RuntimeFailure)), None)
        return self.collate(found) if failure is None else failure
