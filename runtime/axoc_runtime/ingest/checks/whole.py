"""What only all rows together show: copies, questions on both sides of the split, labels out of balance, drift."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from axoc_runtime.ingest.checks.facts import NO_OFFSET, Fact
from axoc_runtime.ingest.checks.finding import WARNING, Finding, of_dataset
from axoc_runtime.ingest.split import held_out_keys
from axoc_runtime.job import DatasetJob

MOST_LABELS: Final = 1000
FEW_ROWS: Final = 20
"""Shares of fewer rows say nothing."""
LARGEST_SHARE: Final = 0.9
"""Of one label: beyond it, saying always the same is right nine times in ten."""
SYSTEM_SHARE: Final = 0.02
LONG_SHARE: Final = 0.05
LEARNS_ONE: Final = "sft"
"""The objective that takes pairs and learns one answer of each."""


@dataclass
class Totals:
    """Of one dataset."""

    rows: int = 0
    cut: int = 0
    untrained_turns: int = 0
    spoken: int = 0
    with_system: int = 0
    pairs: int = 0


class Whole:
    """Some thirty bytes a row are kept."""

    def __init__(self, datasets: Sequence[DatasetJob], objective: str) -> None:
        self.datasets, self.objective = datasets, objective
        self.files: dict[tuple[str, bool], int] = {}
        self.names: list[tuple[str, bool]] = []
        self.key, self.asked, self.number, self.offset = (array("q") for _ in range(4))
        self.file, self.dataset = array("l"), array("b")
        self.totals = [Totals() for _ in datasets]
        self.labels: list[Counter[str]] = [Counter() for _ in datasets]

    def see(self, dataset: int, fact: Fact, *, cut: bool = False, untrained_turns: int = 0) -> None:
        """A row that is used. ``cut``: it was longer than the limit."""
        name = (fact.file, fact.indexed)
        if name not in self.files:
            self.files[name] = len(self.names)
            self.names.append(name)
        for values, value in (
            (self.key, fact.key), (self.asked, fact.asked), (self.number, fact.number), (self.offset, fact.offset),
            (self.file, self.files[name]), (self.dataset, dataset),
        ):  # fmt: skip
            values.append(value)
        totals, labels = self.totals[dataset], self.labels[dataset]
        totals.rows += 1
        totals.cut += cut
        totals.untrained_turns += untrained_turns
        totals.spoken += fact.system is not None
        totals.with_system += bool(fact.system)
        totals.pairs += fact.pair
        if fact.label and (fact.label in labels or len(labels) < MOST_LABELS):
            labels[fact.label] += 1

    def findings(self) -> Iterator[Finding]:
        yield from self._copies()
        yield from self._leaks()
        for dataset, totals, labels in zip(self.datasets, self.totals, self.labels, strict=True):
            yield from _of_all(dataset, totals, labels)
            if self.objective == LEARNS_ONE and totals.pairs:
                yield _half_learned(dataset, totals)

    def _copies(self) -> Iterator[Finding]:
        keys = np.frombuffer(self.key, np.int64)
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        original = first[inverse]
        for row in np.flatnonzero(original != np.arange(len(keys))):
            message = f"is the same row as {self._place(int(original[row]))}"
            fix = "remove one: it counts twice, and its copy says nothing new"
            yield self._finding(int(row), "duplicate", message, fix)

    def _leaks(self) -> Iterator[Finding]:
        """Rows that are held out, and ask what a row that is trained on asks. Copies stay on one side."""
        if not len(self.key):
            return
        keys, asked, of = (np.frombuffer(v, t) for v, t in ((self.key, "q"), (self.asked, "q"), (self.dataset, "b")))
        held = np.zeros(len(keys), bool)
        for index, dataset in enumerate(self.datasets):
            held |= (of == index) & np.isin(keys, held_out_keys(keys[of == index], dataset.validation_split))
        trained, where = np.unique(asked[~held], return_index=True)
        rows = np.flatnonzero(~held)
        for row in np.flatnonzero(held & np.isin(asked, trained)):
            other = int(rows[where[np.searchsorted(trained, asked[row])]])
            message = f"is held out, and asks the same as {self._place(other)}, which is trained on"
            fix = "keep one of them, or the evaluation measures memory"
            yield self._finding(int(row), "leakage", message, fix)

    def _place(self, row: int) -> str:
        (file, indexed), number = self.names[self.file[row]], self.number[row]
        return f"{file}[{number - 1}]" if indexed else f"{file}:{number}"

    def _finding(self, row: int, check: str, message: str, fix: str) -> Finding:
        offset = self.offset[row]
        return Finding(
            level=WARNING, check=check, place=self._place(row), file=self.names[self.file[row]][0],
            row=self.number[row], offset=None if offset == NO_OFFSET else offset, column=None, message=message,
            sample="", fix=fix,
        )  # fmt: skip


def _of_all(dataset: DatasetJob, totals: Totals, labels: Counter[str]) -> Iterator[Finding]:
    if totals.rows >= FEW_ROWS:
        yield from _too_long(dataset, totals)
        yield from _unbalanced(dataset, totals, labels)
        yield from _drifting(dataset, totals)


def _half_learned(dataset: DatasetJob, totals: Totals) -> Finding:
    message = f"{totals.pairs:,} rows are pairs of answers, of which {LEARNS_ONE} learns the chosen one"
    fix = "set training.objective: dpo, ipo, orpo, simpo or reward, which learn from both"
    return of_dataset("one-of-a-pair", dataset.path or "", message, fix)


def _too_long(dataset: DatasetJob, totals: Totals) -> Iterator[Finding]:
    share = totals.cut / totals.rows
    if share > LONG_SHARE:
        limit = f"{dataset.max_seq_length:,} tokens"
        message = f"{totals.cut:,} of {totals.rows:,} rows ({share:.0%}) are longer than {limit}"
        fix = "raise dataset.max_seq_length, or choose what dataset.truncation makes of them"
        yield of_dataset("too-long", dataset.path or "", message, fix)


def _unbalanced(dataset: DatasetJob, totals: Totals, labels: Counter[str]) -> Iterator[Finding]:
    labelled = labels.total()
    if labelled / totals.rows <= LARGEST_SHARE:
        return
    ((label, count),) = labels.most_common(1)
    if count / labelled > LARGEST_SHARE:
        message = f"{count / labelled:.0%} of the answers are {label!r}"
        fix = "balance them, or weigh them: training.preference.desirable_weight and undesirable_weight for kto"
        yield of_dataset("label-imbalance", dataset.path or "", message, fix)


def _drifting(dataset: DatasetJob, totals: Totals) -> Iterator[Finding]:
    path, share = dataset.path or "", totals.with_system / totals.spoken if totals.spoken else 0.0
    if SYSTEM_SHARE < share < 1 - SYSTEM_SHARE and dataset.system_prompt is None:
        message = f"{share:.0%} of the conversations bring a system prompt, and the others none"
        fix = "set dataset.system_prompt, which is put before those that bring none"
        yield of_dataset("template-drift", path, message, fix)
    if totals.untrained_turns:
        many = f"{totals.untrained_turns:,} answers"
        message = f"the chat template rewrites {many} once more is said: they are not trained on"
        fix = "give each of these conversations as several, each ending with one answer"
        yield of_dataset("template-drift", path, message, fix)


def template_findings(tokenizer: Any, path: str, plain: bool) -> Iterator[Finding]:
    """Of the model's own template. ``plain``: it brings none."""
    if plain:
        message = "the model's tokenizer brings no chat template: a plain one is used, and saved with the model"
        yield of_dataset("template-drift", path, message, "name an instruction-tuned model, or give its template")
    if "strftime_now" in repr(getattr(tokenizer, "chat_template", "")):
        message = "the chat template writes today's date: rows prepared on another day are others"
        yield of_dataset(
            "template-drift", path, message, "set dataset.system_prompt, if the template then leaves it out"
        )
