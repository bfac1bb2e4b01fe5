"""From a dataset's path to rows: files, folders, globs and archives by ending, stores by URL, schemes by plugin,
everything else a hub id.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from glob import glob
from pathlib import Path, PurePosixPath
from typing import Final

from axoc_runtime.errors import EXIT_DATA, RuntimeFailure
from axoc_runtime.ingest.base import BadRow, Reader, Record, Source
from axoc_runtime.ingest.opening import ARCHIVE, DAMAGED, NotReadHere, endings, is_remote, members, remote_files
from axoc_runtime.ingest.readers.saved import is_saved
from axoc_runtime.ingest.registry import formats, named, reader_for, readers
from axoc_runtime.job import DatasetJob, Located

Part = tuple[Reader, Source]
WILDCARDS: Final = frozenset("*?[")
POSTGRES: Final = "postgres://"
"""As libpq takes it too."""
NO_DATA: Final = (".", "_")
"""Files and folders beginning with one of them are what tools keep for themselves, as Arrow and Spark have it."""
ABOUT_DATA: Final = frozenset({"readme", "license", "licence", "dataset_infos"})
"""Files that stand beside data, as on the hub, and are data only where nothing else is there."""


def parts(job: Located, dataset: DatasetJob) -> list[Part]:
    """What is to be read, in order. Raises RuntimeFailure where there is nothing, naming what was looked for."""
    written = dataset.path
    if written is None:
        raise RuntimeFailure("a dataset has no path", EXIT_DATA, "set dataset.path in the spec and plan again")
    chosen = named(dataset.type)
    fixed = chosen if isinstance(chosen, Reader) else None
    local = job.resolve(written)
    here = Source(written=written, path=local, options=dataset.options, streaming=dataset.streaming)
    if is_remote(written):
        return _stored(here, fixed)
    if (own := _of_scheme(written)) is not None:
        return [(fixed or own, here)]
    if fixed is not None and not local.exists() and not WILDCARDS & set(written):
        return [(fixed, here)]
    if local.is_dir() and is_saved(local):
        return [(_builtin("saved"), here)]
    if local.is_file():
        return _parts(here, fixed)
    root = _root(local)
    found = [part for name in _files(local, root) for part in _parts(_named(here, root, name), fixed)]
    return found or [_remote(here)]


def records(job: Located, dataset: DatasetJob) -> Iterator[Record]:
    """All rows of a dataset, those that cannot be read with their ``problem``. Raises RuntimeFailure where a whole
    file cannot be read."""
    for part in parts(job, dataset):
        yield from records_of(part)


def records_of(part: Part) -> Iterator[Record]:
    """The same of one file, archive's file, query or address."""
    reader, source = part
    try:
        yield from reader.read(source)
    except BadRow as error:
        fix = error.fix or "repair the file, or name its format in dataset.type"
        raise RuntimeFailure(str(error), EXIT_DATA, fix) from None
    except UnicodeDecodeError as error:
        message = f"{source.written}: not UTF-8 at byte {error.start}"
        raise RuntimeFailure(message, EXIT_DATA, "convert it: iconv -f LATIN1 -t UTF-8") from None
    except DAMAGED as error:
        message = f"{source.written}: damaged, or not what its ending says: {error}"
        raise RuntimeFailure(message, EXIT_DATA, "fetch or compress it again") from None
    except OSError as error:
        if source.url is not None:
            raise _not_had(source.written, error) from None
        message = f"{source.written}: {error.strerror or error}"
        fix = "check the path" if error.errno is not None else "fetch or compress it again"
        raise RuntimeFailure(message, EXIT_DATA, fix) from None
    except Exception as error:
        if source.url is None:
            raise
        raise _not_had(source.written, error) from None


def _not_had(written: str, error: BaseException) -> RuntimeFailure:
    """Each store's client has errors of its own. That of web servers says the address alone, whatever came between."""
    cause = error.__cause__ if isinstance(error, FileNotFoundError) and error.__cause__ is not None else error
    first = (str(cause).strip().splitlines() or [""])[0]
    message = f"{written}: {type(cause).__name__}: {first[:200]}"
    return RuntimeFailure(message, EXIT_DATA, "check the address, the network and the credentials")


def fingerprints(job: Located, dataset: DatasetJob) -> list[str]:
    """What the prepared rows depend on."""
    return [f"{reader.name}:{reader.fingerprint(source)}" for reader, source in parts(job, dataset)]


def _of_scheme(written: str) -> Reader | None:
    if written.startswith(POSTGRES):
        return _builtin("postgres")
    return next((r for r in readers() if r.scheme is not None and written.startswith(f"{r.scheme}:")), None)


def _known() -> set[str]:
    return {s for r in readers() for s in r.suffixes}


def _builtin(name: str) -> Reader:
    found = formats()[name]
    assert isinstance(found, Reader)
    return found


def _named(here: Source, root: Path, name: str) -> Source:
    return replace(here, written=name, path=root / name)


def _root(local: Path) -> Path:
    """The folder itself, or the one that a glob begins in."""
    return local if local.is_dir() else next(p for p in local.parents if p.is_dir())


def _files(local: Path, root: Path) -> list[str]:
    """The readable files of a folder, or those a glob matches; sorted, with their paths from ``root``."""
    if local.is_dir():
        known = _known() | {ARCHIVE}
        files = sorted(p for p in local.rglob("*") if p.is_file() and endings(p.name)[0] in known)
        return _data([str(p.relative_to(local)) for p in files])
    pattern = str(local.relative_to(root))
    matched = glob(pattern, root_dir=root, recursive=True) if WILDCARDS & set(pattern) else []
    return sorted(name for name in matched if (root / name).is_file())


def _data(names: list[str]) -> list[str]:
    """Of a folder or an archive, those that are data."""
    shown = [n for n in names if not any(part.startswith(NO_DATA) for part in PurePosixPath(n).parts)]
    return [n for n in shown if PurePosixPath(n).name.lower().partition(".")[0] not in ABOUT_DATA] or shown


def _stored(here: Source, fixed: Reader | None) -> list[Part]:
    """Files of a store. Raises RuntimeFailure."""
    try:
        urls = remote_files(here.written, here.options)
    except NotReadHere as error:
        raise RuntimeFailure(f"{here.written}: {error}", EXIT_DATA, "install it, or copy the data here") from None
    except Exception as error:
        raise _not_had(here.written, error) from None
    if len(urls) > 1:
        within = len(here.written.partition("*")[0].rpartition("/")[0]) + 1
        known = [u for u in urls if endings(u)[0] in _known() | {ARCHIVE}]
        urls = [u for u in known if u[within:] in _data([k[within:] for k in known])]
    if not urls:
        raise RuntimeFailure(f"{here.written}: no data found", EXIT_DATA, "check dataset.path")
    return [p for u in urls for p in _parts(replace(here, url=u, written=u if len(urls) > 1 else here.written), fixed)]


def _parts(source: Source, fixed: Reader | None) -> list[Part]:
    """The file, or those inside it where it is a zip archive."""
    ending = endings(source.name)[0]
    if ending != ARCHIVE:
        return [_part(source, fixed)]
    try:
        names = members(source)
    except (*DAMAGED, OSError) as error:
        raise RuntimeFailure(f"{source.written}: not a zip archive: {error}", EXIT_DATA, "make it again") from None
    data = _data([n for n in names if endings(n)[0] in _known()])
    inside = [replace(source, written=f"{source.written}/{n}", member=n) for n in data]
    if not inside:
        message = f"{source.written}: holds no file that a format reads"
        raise RuntimeFailure(message, EXIT_DATA, f"known endings: {', '.join(sorted(_known()))}")
    return [_part(one, fixed) for one in inside]


def _part(source: Source, fixed: Reader | None) -> Part:
    ending = endings(source.name)[0]
    reader = fixed or reader_for("", ending)
    if reader is None:
        message = f"{source.written}: no format reads files that end in {ending or 'nothing'}"
        fix = f"known endings: {', '.join(sorted(_known()))}; or name a reader in dataset.type"
        raise RuntimeFailure(message, EXIT_DATA, fix)
    return reader, source


def _remote(here: Source) -> Part:
    """A hub id; what looks like a path is a missing file instead."""
    written, local = here.written, here.path
    looks_local = written.startswith((".", "/", "~")) or endings(local.name)[0] in _known()
    if looks_local or local.exists() or written.count("/") > 1 or WILDCARDS & set(written) or "://" in written:
        where = f"{written}: no data found (looked for {local})"
        raise RuntimeFailure(where, EXIT_DATA, "check dataset.path; relative paths count from where axoc plan was run")
    return _builtin("hub"), here
