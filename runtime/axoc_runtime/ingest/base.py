"""What a dataset format is. A plugin subclasses Reader or Schema, in one class, and names it as an entry point of
``axoc_runtime.dataset_formats``.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

Message = dict[str, Any]
"""``role`` (system | user | assistant | tool) and ``content``, as chat templates take them; maybe ``tool_calls``."""


class BadRow(ValueError):
    """A row that cannot be used: why, and in which column."""

    def __init__(self, message: str, column: str | None = None) -> None:
        super().__init__(message)
        self.column = column


@dataclass(frozen=True, kw_only=True)
class Record:
    place: str
    """Where the row stands, for messages: ``train.jsonl:17``."""
    row: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A dataset's path, as the spec has it and as this machine finds it."""

    written: str
    path: Path
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """Messages in order. Only what the assistant says is trained on."""

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Document:
    """Plain text, trained on as a whole."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Preference:
    """Two answers to the same conversation, of which one is better. The conversation ends with a user's turn."""

    prompt: Conversation
    chosen: Message
    rejected: Message


@dataclass(frozen=True, kw_only=True)
class Rated:
    """An answer, and whether it is a good one."""

    prompt: Conversation
    completion: Message
    good: bool


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A conversation to be answered, and what a reward function may hold the answer against."""

    prompt: Conversation
    answer: str = ""


Example = Conversation | Document | Preference | Rated | Prompt


class Reader(ABC):
    """Rows from somewhere: a kind of file, a scheme, a service."""

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = ()
    """Of files it reads, e.g. ``.csv``."""
    scheme: ClassVar[str | None] = None
    """Or of paths: ``pydoc`` reads ``pydoc:stdlib``."""

    @abstractmethod
    def read(self, source: Source) -> Iterator[Record]:
        """The rows, in order. Raises BadRow (with the place in its text) or OSError where they cannot be read."""

    def fingerprint(self, source: Source) -> str:
        """Changes whenever the rows do: what was prepared from them is then prepared again."""
        digest = hashlib.sha256()
        with source.path.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
        return digest.hexdigest()


class Schema(ABC):
    """What the columns of a row mean."""

    name: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]
    """Needed, and by their presence recognized where ``dataset.type`` is auto."""
    optional: ClassVar[tuple[str, ...]] = ()
    makes: ClassVar[type | None] = None
    """The kind of example; where several schemas fit a row, those whose kind the objective takes are looked at."""

    @abstractmethod
    def convert(self, row: Mapping[str, Any]) -> Example:
        """An example of one row that has all ``columns``. Raises BadRow."""

    def fits(self, columns: frozenset[str]) -> bool:
        """True where a row with these columns is unmistakably of this schema."""
        return set(self.columns) <= columns
