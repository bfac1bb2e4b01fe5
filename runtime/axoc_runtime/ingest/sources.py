"""From a dataset's path to rows: files, folders and globs by suffix, schemes by plugin, everything else a hub id."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from axoc_runtime.errors import EXIT_DATA, RuntimeFailure
from axoc_runtime.ingest.base import BadRow, Reader, Record, Source
from axoc_runtime.ingest.registry import formats, named, reader_for, readers
from axoc_runtime.job import DatasetJob, Job

Part = tuple[Reader, Source]
WILDCARDS: Final = frozenset("*?[")


def parts(job: Job, dataset: DatasetJob) -> list[Part]:
    """What is to be read, in order. Raises RuntimeFailure where there is nothing, naming what was looked for."""
    written = dataset.path
    if written is None:
        raise RuntimeFailure("a dataset has no path", EXIT_DATA, "set dataset.path in the spec and plan again")
    chosen = named(dataset.type)
    fixed = chosen if isinstance(chosen, Reader) else None
    local = job.resolve(written)
    if fixed is None and _has_scheme(written):
        fixed = reader_for(written, "")
    if fixed is not None and not local.exists():
        return [(fixed, Source(written=written, path=local, options=dataset.options))]
    files = _files(local)
    if files:
        return [_part(written, file, local, fixed, dataset) for file in files]
    return [_remote(written, local, dataset)]


def records(job: Job, dataset: DatasetJob) -> Iterator[Record]:
    """All rows of a dataset. Raises RuntimeFailure where a file cannot be read."""
    for reader, source in parts(job, dataset):
        try:
            yield from reader.read(source)
        except BadRow as error:
            raise RuntimeFailure(str(error), EXIT_DATA, "repair the file, or name its format in dataset.type") from None
        except UnicodeDecodeError as error:
            message = f"{source.written}: not UTF-8 at byte {error.start}"
            raise RuntimeFailure(message, EXIT_DATA, "convert it: iconv -f LATIN1 -t UTF-8") from None
        except OSError as error:
            raise RuntimeFailure(f"{source.written}: {error.strerror or error}", EXIT_DATA, "check the path") from None


def fingerprints(job: Job, dataset: DatasetJob) -> list[str]:
    """What the prepared rows depend on."""
    return [f"{reader.name}:{reader.fingerprint(source)}" for reader, source in parts(job, dataset)]


def _has_scheme(written: str) -> bool:
    return any(r.scheme is not None and written.startswith(f"{r.scheme}:") for r in readers())


def _files(local: Path) -> list[Path]:
    """A file, the readable files of a folder, or those a glob matches; sorted by path."""
    if local.is_file():
        return [local]
    if local.is_dir():
        known = {s for r in readers() for s in r.suffixes}
        return sorted(p for p in local.rglob("*") if p.is_file() and p.suffix.lower() in known)
    if WILDCARDS & set(local.name):
        return sorted(p for p in local.parent.glob(local.name) if p.is_file())
    return []


def _part(written: str, file: Path, local: Path, fixed: Reader | None, dataset: DatasetJob) -> Part:
    reader = fixed or reader_for("", file.suffix)
    name = written if file == local else file.name
    if reader is None:
        suffixes = ", ".join(sorted({s for r in readers() for s in r.suffixes}))
        message = f"{name}: no format reads files that end in {file.suffix or 'nothing'}"
        raise RuntimeFailure(message, EXIT_DATA, f"known endings: {suffixes}; or name a reader in dataset.type")
    return reader, Source(written=name, path=file, options=dataset.options)


def _remote(written: str, local: Path, dataset: DatasetJob) -> Part:
    """A hub id; what looks like a path is a missing file instead."""
    looks_local = written.startswith((".", "/", "~")) or local.suffix.lower() in {
        s for r in readers() for s in r.suffixes
    }
    if looks_local or local.exists() or written.count("/") > 1 or WILDCARDS & set(written) or "://" in written:
        where = f"{written}: no data found (looked for {local})"
        raise RuntimeFailure(where, EXIT_DATA, "check dataset.path; relative paths count from where axoc plan was run")
    hub = formats()["hub"]
    assert isinstance(hub, Reader)
    return hub, Source(written=written, path=local, options=dataset.options)
