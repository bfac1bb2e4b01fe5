"""spec.lock: what is resolved once and committed beside the spec: datasets by digest and rows, the model's revision."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from glob import glob
from pathlib import Path
from typing import Final, Protocol

import yaml

from axoc.errors import Diagnostic, UserError
from axoc.facts.lengths import as_text, from_text
from axoc.facts.rows import count_rows
from axoc.facts.yaml_nodes import NodeReader, compose, scalar
from axoc.ir.facts import DataFacts, RowLengths

VERSION: Final = 1
DATA_SUFFIXES: Final = (
    ".json",
    ".jsonl",
    ".ndjson",
    ".csv",
    ".tsv",
    ".txt",
    ".md",
    ".parquet",
    ".arrow",
    ".gz",
    ".zst",
)
ABOUT_DATA: Final = frozenset({"readme", "license", "licence", "dataset_infos"})
"""Files beside data, and data only where nothing else is there."""
_TOP: Final = ("version", "model", "datasets")
_DATASET: Final = ("path", "sha256", "bytes", "rows")
_ENTRY: Final = (*_DATASET, "lengths")
_CHUNK_BYTES: Final = 1 << 20


class HasPath(Protocol):
    """A dataset of the request, as far as it is read here."""

    @property
    def path(self) -> str | None: ...

    @property
    def on_bad_row(self) -> str: ...


def resolve(datasets: Sequence[HasPath], locate: Callable[[str], Path]) -> tuple[DataFacts, ...]:
    """Facts of each dataset, in order. ``locate`` turns a written path into one on this machine.

    A file, a folder of data files or a glob is read; hub ids and remote addresses stay unknown. Raises UserError
    where a local file cannot be read as what its name says, and the run would stop at it.
    """
    return tuple(
        _facts(d.path, local_files(d.path, locate), damaged=d.on_bad_row != "fail") if d.path else DataFacts(path=None)
        for d in datasets
    )


def lock_text(model_id: str | None, revision: str | None, data: Sequence[DataFacts]) -> str:
    """The lock as YAML: the same bytes for the same facts."""
    entries = [_plain(fact) for fact in data]
    value = {"version": VERSION, "model": {"id": model_id, "revision": revision}, "datasets": entries}
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=4096)


def _plain(fact: DataFacts) -> dict[str, object]:
    lengths = as_text(fact.lengths)
    return {name: getattr(fact, name) for name in _DATASET} | ({} if lengths is None else {"lengths": lengths})


def parse_lock(text: str, file: str = "spec.lock") -> tuple[DataFacts, ...]:
    """The datasets of a lock. Raises UserError with file, line and column."""
    reader = NodeReader(file=file)
    root = compose(text, file)
    top = reader.mapping(root, _TOP, "the lock")
    if top and scalar(top.get("version")) != VERSION:
        reader.reject(top.get("version") or root, "the lock's version is not 1", fix="run axoc lock again")
    datasets = top.get("datasets")
    nodes = datasets.value if isinstance(datasets, yaml.SequenceNode) else []
    if datasets is not None and not isinstance(datasets, yaml.SequenceNode):
        reader.reject(datasets, "datasets is not a list")
    facts = tuple(_entry(reader, node) for node in nodes)
    reader.finish()
    return facts


def local_files(written: str, locate: Callable[[str], Path]) -> tuple[Path, ...]:
    """Data files of a local path, folder or glob, sorted by name; none for a hub id or a remote address."""
    if "://" in written:
        return ()
    path = locate(written)
    if path.is_file():
        return (path,)
    root = path if path.is_dir() else next(p for p in path.parents if p.is_dir())
    names = _names(path, root)
    return tuple(root / name for name in sorted(names) if (root / name).is_file())


def _names(path: Path, root: Path) -> list[str]:
    """Of a folder's data, without what stands beside them, or of what a glob matches: as the runtime reads them."""
    pattern = str(path.relative_to(root))
    if not path.is_dir():
        return glob(pattern, root_dir=root, recursive=True) if set(pattern) & set("*?[") else []
    found = [p.relative_to(root) for p in path.rglob("*") if p.suffix.lower() in DATA_SUFFIXES]
    shown = [p for p in found if not any(part.startswith((".", "_")) for part in p.parts)]
    return [str(p) for p in shown if p.name.lower().partition(".")[0] not in ABOUT_DATA] or [str(p) for p in shown]


def _facts(written: str, files: Sequence[Path], *, damaged: bool = False) -> DataFacts:
    """``damaged``: rows may be, and the run goes on without them: how many there are of such a file is not known."""
    if not files:
        return DataFacts(path=written)
    try:
        rows = [_counted(file, damaged=damaged) for file in files]
        return DataFacts(
            path=written,
            rows=None if None in rows else sum(row for row in rows if row is not None),
            bytes=sum(file.stat().st_size for file in files),
            sha256=_digest(files),
        )
    except OSError as error:
        message = f"cannot read {error.filename}: {error.strerror}"
        raise UserError(Diagnostic(message=message, file=written, fix="check the file's permissions")) from None


def _counted(file: Path, *, damaged: bool) -> int | None:
    try:
        return count_rows(file)
    except UserError:
        if damaged:
            return None
        raise


def _digest(files: Sequence[Path]) -> str:
    """A file's own SHA-256; for several, that of their names and digests, so that a renamed file counts as a change."""
    if len(files) == 1:
        return _file_digest(files[0])
    lines = "".join(f"{_file_digest(file)}  {file.name}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def _file_digest(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _entry(reader: NodeReader, node: yaml.Node) -> DataFacts:
    values = reader.mapping(node, _ENTRY, "datasets")
    return DataFacts(
        path=reader.text(values.get("path"), "path"),
        sha256=reader.text(values.get("sha256"), "sha256"),
        rows=_optional_count(reader, values.get("rows"), "rows"),
        bytes=_optional_count(reader, values.get("bytes"), "bytes"),
        lengths=_lengths(reader, values.get("lengths")),
    )


def _lengths(reader: NodeReader, node: yaml.Node | None) -> RowLengths | None:
    text = reader.text(node, "lengths")
    if text is None:
        return None
    try:
        return from_text(text)
    except ValueError:
        reader.reject(node, f"lengths is {text[:40]!r}", expected="e.g. 64x120 128x300", fix="run axoc lock again")
        return None


def _optional_count(reader: NodeReader, node: yaml.Node | None, name: str) -> int | None:
    value = scalar(node)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        reader.reject(node, f"{name} is {str(value)[:40]!r}", expected="a whole number", fix="run axoc lock again")
        return None
    return value
