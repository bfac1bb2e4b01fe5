"""Rows as they are read, for data larger than the disk: mixed by weight, in windows that are shuffled and packed by
themselves.

All that a window holds follows from its number: which records (the mixture is a fixed sequence), in which order (drawn from
seed and number), in which packs. So a run goes on exactly where it was stopped by knowing how many items the windows before
had, which is written down as they are made. Windows are dealt to the ranks in turn: each encodes only its own, and reads
over the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np

from axoc_runtime.errors import EXIT_DATA, RuntimeFailure
from axoc_runtime.ingest.base import Record, Schema
from axoc_runtime.ingest.checks.finding import ERROR
from axoc_runtime.ingest.checks.ledger import Ledger
from axoc_runtime.ingest.gather import Gathered, chosen_schema
from axoc_runtime.ingest.sources import records
from axoc_runtime.job import DatasetJob, Job
from axoc_runtime.objectives.base import Row
from axoc_runtime.objectives.registry import objective_of
from axoc_runtime.preparation.packing import packs
from axoc_runtime.preparation.whole import capacity_of, is_packed
from axoc_runtime.preparation.work import UNIT_RECORDS, Made, Unit, make

WINDOW_RECORDS: Final = 4 * UNIT_RECORDS
SHOWN_PROBLEMS: Final = 20


def is_streamed(job: Job) -> bool:
    """Raises RuntimeFailure where the objective's rows cannot be streamed."""
    streamed = any(d.streaming for d in job.datasets)
    objective = objective_of(job)
    if streamed and not objective.as_arrays:
        message = f"objective {objective.name} needs all rows prepared before it trains: they cannot be streamed"
        raise RuntimeFailure(message, EXIT_DATA, "set dataset.streaming: false and plan again")
    return streamed


def mixed(weights: Sequence[float]) -> Iterator[int]:
    """Without end, which dataset comes next: always the one furthest behind its share, the first one of several. So after any
    number of draws none is further from its exact share than there are datasets."""
    shares = np.asarray(weights, np.float64) / sum(weights)
    behind = np.zeros(len(shares))
    while True:
        behind += shares
        chosen = int(np.argmax(behind))
        behind[chosen] -= 1.0
        yield chosen


class Source:
    """The records of one dataset, again and again."""

    def __init__(self, job: Job, dataset: DatasetJob) -> None:
        self.job, self.dataset = job, dataset
        self.schema: Schema | None = chosen_schema(dataset)
        self._records = self._endless()

    def take(self, count: int) -> tuple[Record, ...]:
        return tuple(islice(self._records, count))

    def skip(self, count: int) -> None:
        """Read over."""
        next(islice(self._records, count, count), None)

    def _endless(self) -> Iterator[Record]:
        while True:
            seen = False
            found = Gathered(records(self.job, self.dataset), self.schema, objective_of(self.job).accepts)
            for record in found:
                seen, self.schema = True, found.schema
                yield record
            if not seen:
                raise RuntimeFailure(f"{self.dataset.path}: has no record", EXIT_DATA, "check dataset.path")


class Windows:
    """The windows of one rank from a number on, each as the list of its items: rows, or packs of rows."""

    def __init__(self, job: Job, tokenizer: Any, *, rank: int, ranks: int) -> None:
        self.job, self.tokenizer, self.rank, self.ranks = job, tokenizer, rank, ranks
        self.made: list[tuple[int, Made]] = []
        """Of the window that was given last, dataset by dataset: what is to be told of its records."""

    def after(self, window: int) -> Iterator[tuple[int, list[Any]]]:
        """(number, items) from ``window`` on, which is one of this rank's. Raises RuntimeFailure."""
        sources = [Source(self.job, d) for d in self.job.datasets]
        draws = mixed([d.weight for d in self.job.datasets])
        _skip(sources, draws, window * WINDOW_RECORDS)
        while True:
            yield window, self._items(window, sources, Counter(islice(draws, WINDOW_RECORDS)))
            _skip(sources, draws, (self.ranks - 1) * WINDOW_RECORDS)
            window += self.ranks

    def _items(self, window: int, sources: list[Source], counts: Counter[int]) -> list[Any]:
        rows: list[Row] = []
        self.made = []
        for index, source in enumerate(sources):
            taken = source.take(counts[index])
            unit = Unit(number=window, dataset=index, schema=source.schema, records=taken)
            made = make(self.job, source.dataset, self.tokenizer, unit)
            _refuse(source.dataset, [f.text for _, findings in made.unused for f in findings if f.level == ERROR])
            rows += made.rows
            self.made.append((index, made))
        draw = np.random.default_rng([self.job.training.seed, window])
        read = [_arrays(rows[i]) for i in draw.permutation(len(rows))]
        if not is_packed(self.job):
            return read
        order, edges = packs([len(row["input_ids"]) for row in read], capacity_of(self.job))
        made_packs = [{"documents": [read[i] for i in order[a:b]]} for a, b in pairwise(edges)]
        return [made_packs[i] for i in draw.permutation(len(made_packs))]


def _skip(sources: list[Source], draws: Iterator[int], count: int) -> None:
    for index, many in sorted(Counter(islice(draws, count)).items()):
        sources[index].skip(many)


def _arrays(row: Row) -> dict[str, Any]:
    return {name: np.asarray(values, np.int32) for name, values in row.columns.items()}


def _refuse(dataset: DatasetJob, errors: list[str]) -> None:
    if errors and dataset.on_bad_row == "fail":
        lines = [f"{len(errors):,} rows cannot be used:", *(f"  {text}" for text in errors[:SHOWN_PROBLEMS])]
        fix = "repair or remove these rows, or set dataset.on_bad_row: drop"
        raise RuntimeFailure("\n".join(lines), EXIT_DATA, fix)


class Journal:
    """How many items each window of a rank had, a line each. What is lost of it is made anew, which takes longer."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def counts(self) -> dict[int, int]:
        try:
            lines = self.path.read_text(encoding="ascii").splitlines(keepends=True)
        except OSError:
            return {}
        whole = (line.split() for line in lines if line.endswith("\n"))
        return {int(window): int(count) for window, count in whole}

    def add(self, window: int, count: int) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="ascii") as stream:
            stream.write(f"{window} {count}\n")


class Listing:
    """Findings of the records of a rank's windows, each window's once, behind those that are listed already. In an output
    folder ``data-check-0-of-2.csv`` and, where the spec keeps bad rows, ``quarantine-0-of-2.jsonl``."""

    def __init__(self, job: Job, *, rank: int, ranks: int) -> None:
        of = f"{rank}-of-{ranks}"
        self.job = job
        self.report, self.quarantine = job.output / f"data-check-{of}.csv", job.output / f"quarantine-{of}.jsonl"

    def add(self, made: Sequence[tuple[int, Made]]) -> None:
        if any(one.findings or one.unused for _, one in made):
            with Ledger(self.report, self.quarantine, append=True) as ledger:
                listed(self.job, made, ledger)


def listed(job: Job, made: Sequence[tuple[int, Made]], ledger: Ledger) -> None:
    for index, one in made:
        ledger.add(*one.findings)
        for record, findings in one.unused:
            ledger.unused(record, findings, keep=job.datasets[index].on_bad_row == "quarantine")


def items(windows: Windows, journal: Journal, done: int, listing: Listing | None = None) -> Iterator[Any]:
    """The rank's items without end, but for the first ``done``."""
    known = journal.counts()
    window = windows.rank
    while window in known and done >= known[window]:
        done -= known[window]
        window += windows.ranks
    for number, found in windows.after(window):
        if number not in known:
            if listing is not None:
                listing.add(windows.made)
            journal.add(number, len(found))
        yield from found[done:]
        done = max(0, done - len(found))
