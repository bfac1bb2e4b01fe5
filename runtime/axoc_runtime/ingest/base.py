"""What a dataset format is. A plugin subclasses Reader or Schema, in one class, and names it as an entry point of
``axoc_runtime.dataset_formats``.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Final

Message = dict[str, Any]
"""``role`` (system | user | assistant | tool) and ``content``, as chat templates take them; maybe ``tool_calls``, and
``weight`` 0 for a turn of the assistant that is not trained on."""


class BadRow(ValueError):
    """A row that cannot be used: why, in which column, which check found it, and the smallest fix."""

    def __init__(self, message: str, column: str | None = None, *, check: str = "value", fix: str = "") -> None:
        super().__init__(message)
        self.column = column
        self.check = check
        self.fix = fix


@dataclass(frozen=True, kw_only=True)
class Record:
    place: str
    """Where the row stands, for messages: ``train.jsonl:17``."""
    row: Mapping[str, Any]
    file: str = ""
    """As the spec writes it, or its name inside the folder or archive."""
    number: int | None = None
    """The line in files of lines, else the row, both counted from 1."""
    offset: int | None = None
    """Bytes before it in its file, once decompressed; None where a format has no such place."""
    problem: BadRow | None = None
    """Why it could not be read; ``row`` is empty then."""
    raw: str = ""
    """What was there instead, for a row that could not be read."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A dataset's path, as the spec has it and as this machine finds it."""

    written: str
    path: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    url: str | None = None
    """Where it lies on a store instead; ``path`` then means nothing."""
    member: str | None = None
    """Of the zip archive that ``path`` or ``url`` is."""
    streaming: bool = False
    """True where the data may be larger than the disk: nothing of them may be kept there."""

    @property
    def name(self) -> str:
        """Of the file, with all its endings, and without what an address asks for beside."""
        whole = str(self.path) if self.url is None else self.url
        if self.url is not None and self.url.startswith("http"):
            whole = self.url.partition("#")[0].partition("?")[0]
        return self.member or whole.rpartition("/")[2]

    def open(self) -> BinaryIO:
        """The bytes, decompressed as they are read. Raises OSError, and what a damaged archive raises."""
        from axoc_runtime.ingest.opening import opened

        return opened(self)

    def seekable(self) -> AbstractContextManager[BinaryIO]:
        """The same for formats that jump about in a file: what cannot be jumped in is first copied to the disk."""
        from axoc_runtime.ingest.opening import seekable

        return seekable(self)


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


@dataclass(frozen=True, kw_only=True)
class Segments:
    """Text as it is to be read, without a chat template, and which stretches of it are trained on."""

    parts: tuple[tuple[str, bool], ...]


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Ids of the model's own tokenizer, made elsewhere. Labels are -100 where nothing is learned."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Steps:
    """A solution step by step, each right or wrong: for models that judge steps."""

    prompt: Conversation
    steps: tuple[str, ...]
    right: tuple[bool, ...]


@dataclass(frozen=True, kw_only=True)
class Pictured:
    """A conversation about images: for models that see."""

    conversation: Conversation
    images: tuple[Any, ...]
    """Bytes, paths, or addresses, as the row has them."""


Example = Conversation | Document | Preference | Rated | Prompt | Segments | Tokens | Steps | Pictured


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
        if source.url is not None:
            from axoc_runtime.ingest.opening import remote_fingerprint

            return remote_fingerprint(source.url, source.options)
        digest = hashlib.sha256()
        with source.path.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
        return digest.hexdigest()


IMAGES: Final = frozenset({"image", "images"})
"""Columns that no schema of texts reads: leaving them out in silence would train on questions about nothing."""


class Schema(ABC):
    """What the columns of a row mean."""

    name: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]
    """Needed, and by their presence recognized where ``dataset.type`` is auto."""
    optional: ClassVar[tuple[str, ...]] = ()
    without: ClassVar[tuple[str, ...]] = ()
    """Columns that make a row one of another format."""
    makes: ClassVar[type | None] = None
    """The kind of example; where several schemas fit a row, those whose kind the objective takes are looked at."""

    @abstractmethod
    def convert(self, row: Mapping[str, Any]) -> Example:
        """An example of one row that has all ``columns``. Raises BadRow."""

    def gather(self, records: Iterable[Record]) -> Iterator[Record]:
        """The records that are converted: as they are read, or several of them as one. Every one that is read must come
        out again, be part of one that does, or come out with its ``problem``; what is held at once must not grow with the
        data."""
        return iter(records)

    def fits(self, columns: frozenset[str]) -> bool:
        """True where a row with these columns is unmistakably of this schema."""
        known = {*self.columns, *self.optional}
        others = {*self.without, *(IMAGES - known)}
        return set(self.columns) <= columns and not columns & others

    def recognizes(self, row: Mapping[str, Any]) -> bool:
        """The same of a whole row, for schemas that its columns alone do not tell apart."""
        return self.fits(columns_of(row))


def columns_of(row: Mapping[str, Any]) -> frozenset[str]:
    """Columns that hold something: JSON has null, and tables have None, where a row has no such value."""
    return frozenset(str(name) for name, value in row.items() if value is not None)
