"""What an objective is. A plugin subclasses Objective, in one class, and names it as an entry point of
``axoc_runtime.objectives``. Nothing here imports torch: ``prepare`` uses the half of it that makes rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from axoc_runtime.ingest.base import BadRow, Conversation, Document, Example, Segments, Tokens
from axoc_runtime.job import DatasetJob, Job


@dataclass(frozen=True, kw_only=True)
class Row:
    """A prepared row: what the trainer reads, and what the report counts."""

    columns: Mapping[str, Any]
    """By the names of ``Objective.columns``."""
    length: int
    """Tokens of its longest sequence."""
    tokens: int
    """Of all its sequences."""
    trained_tokens: int
    """Tokens that something is learned from; a row without any is left out."""
    highest_id: int
    cut: bool = False
    """True where a sequence was longer than the limit."""
    untrained_turns: int = 0


@dataclass(frozen=True, kw_only=True)
class Figure:
    """What is measured on the held-out rows, before and after."""

    name: str
    """In metrics.json: ``<name>_before``, ``<name>_after``."""
    log: str
    """In the Trainer's log of an evaluation."""
    title: str


class Objective(ABC):
    name: ClassVar[str]
    accepts: ClassVar[tuple[type, ...]] = (Conversation, Document, Segments, Tokens)
    """Kinds of examples that rows can be made of."""
    wants: ClassVar[str] = "conversations or plain text"
    """The same, for messages."""
    columns: ClassVar[Mapping[str, str]]
    """Of a prepared row: tokens (a list of ids), flag, text."""
    figures: ClassVar[tuple[Figure, ...]]
    """The first one is the headline."""
    sequences_per_row: ClassVar[int] = 1
    """Sequences the model sees of each row of a batch."""
    best: ClassVar[tuple[str, bool]] = ("eval_loss", False)
    """What early stopping and the best checkpoint look at, and whether more is better."""
    as_arrays: ClassVar[bool] = False
    """Rows are read as slices of the memory map, by a collator that takes them; only such rows can be packed. Else they
    come as a datasets.Dataset, which TRL's trainers ask for."""
    answers: ClassVar[bool] = True
    """The trained model generates text: samples can be asked of it. One that does not has a head of one output."""

    @abstractmethod
    def rows(self, job: Job, dataset: DatasetJob, tokenizer: Any, example: Example) -> list[Row]:
        """Rows of one example. Raises BadRow."""

    def rows_of(
        self, job: Job, dataset: DatasetJob, tokenizer: Any, examples: Sequence[Example]
    ) -> list[list[Row] | BadRow]:
        """The same of many examples, which tokenizers do faster together; BadRow in the place of one that cannot be used."""
        return [self._rows_or_why_not(job, dataset, tokenizer, example) for example in examples]

    def _rows_or_why_not(self, job: Job, dataset: DatasetJob, tokenizer: Any, example: Example) -> list[Row] | BadRow:
        try:
            return self.rows(job, dataset, tokenizer, example)
        except BadRow as error:
            return error

    def arguments(self, job: Job) -> tuple[type, dict[str, Any]]:
        """The class of the Trainer's arguments, and those that only this objective has."""
        from transformers import TrainingArguments

        return TrainingArguments, {}

    def load(self, job: Job, device: Any) -> Any:
        """The model to be trained."""
        from axoc_runtime.models.load import load_trainable

        return load_trainable(job, device)

    @abstractmethod
    def trainer(self, job: Job, **parts: Any) -> Any:
        """A Trainer with ``Planned`` among its bases. ``parts``: model, args, train_dataset, eval_dataset,
        processing_class, callbacks."""

    def measured(self, logged: Mapping[str, Any]) -> dict[str, float]:
        """The figures by name, from an evaluation's log."""
        return {f.name: float(logged[f.log]) for f in self.figures if f.log in logged}

    def told(self, logged: Mapping[str, Any]) -> str | None:
        """The headline of an evaluation's log, for people; None where the log is of something else."""
        headline = self.figures[0]
        return f"{headline.title} {logged[headline.log]:.4g}" if headline.log in logged else None
