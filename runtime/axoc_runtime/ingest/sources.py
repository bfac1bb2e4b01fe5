"""From a dataset's path to rows: files, folders, globs and archives by ending, stores by URL, schemes by plugin,
everything else a hub id.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from axoc_runtime.errors import EXIT_DATA, RuntimeFailure
from axoc_runtime.ingest.base import BadRow, Reader, Record, Source
from axoc_runtime.ingest.opening import ARCHIVE, DAMAGED, endings, is_remote, members, remote_files
from axoc_runtime.ingest.readers.saved import is_saved
from axoc_runtime.ingest.registry import formats, named, reader_for, readers
from axoc_runtime.job import DatasetJob, Located

Part = tuple[Reader, Source]
WILDCARDS: Final = frozenset("*?[")


def parts(job: Located, dataset: DatasetJob) -> list[Part]:
    """What is to be read, in order. Raises RuntimeFailure where there is nothing, naming what was looked for."""
    written = dataset.path
    if written is None:
        raise RuntimeFailure("a dataset has no path", EXIT_DATA, "set dataset.path in the spec and plan again")
    chosen = named(dataset.type)
    fixed = chosen if isinstance(chosen, Reader) else None
    local = job.resolve(written)
    here = Source(written=written, path=local, options=dataset.options)
    if fixed is None and _has_scheme(written):
        fixed = reader_for(written, "")
    if is_remote(written):
        return _stored(here, fixed)
    if fixed is not None and not local.exists() and not WILDCARDS & set(local.name):
        return [(fixed, here)]
    if local.is_dir() and is_saved(local):
        return [(_builtin("saved"), here)]
    files = _files(local)
    if files:
        return [part for file in files for part in _parts(_named(here, file, local), fixed)]
    return [_remote(here)]


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
        message = f"{source.written}: {error.strerror or error}"
        raise RuntimeFailure(message, EXIT_DATA, "check the path") from None
    except Exception as error:
        if source.url is None:
            raise
        first = (str(error).strip().splitlines() or [""])[0]  # each store's client has errors of its own
        message = f"{source.written}: {type(error).__name__}: {first[:200]}"
        raise RuntimeFailure(message, EXIT_DATA, "check the address, the network and the credentials") from None


def fingerprints(job: Located, dataset: DatasetJob) -> list[str]:
    """What the prepared rows depend on."""
    return [f"{reader.name}:{reader.fingerprint(source)}" for reader, source in parts(job, dataset)]


def _has_scheme(written: str) -> bool:
    return any(r.scheme is not None and written.startswith(f"{r.scheme}:") for r in readers())


def _known() -> set[str]:
    return {s for r in readers() for s in r.suffixes}


def _builtin(name: str) -> Reader:
    found = formats()[name]
    assert isinstance(found, Reader)
    return found


def _named(here: Source, file: Path, local: Path) -> Source:
    return replace(here, written=here.written if file == local else file.name, path=file)


def _files(local: Path) -> list[Path]:
    """A file, the readable files of a folder, or those a glob matches; sorted by path."""
    if local.is_file():
        return [local]
    if local.is_dir():
        known = _known() | {ARCHIVE}
        return sorted(p for p in local.rglob("*") if p.is_file() and endings(p.name)[0] in known)
    if WILDCARDS & set(local.name):
        return sorted(p for p in local.parent.glob(local.name) if p.is_file())
    return []


def _stored(here: Source, fixed: Reader | None) -> list[Part]:
    """Files of a store. Raises RuntimeFailure."""
    try:
        urls = remote_files(here.written, here.options)
    except OSError as error:
        raise RuntimeFailure(f"{here.written}: {error}", EXIT_DATA, "check the address and the credentials") from None
    if len(urls) > 1:
        urls = [u for u in urls if endings(u)[0] in _known() | {ARCHIVE}]
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
    inside = [replace(source, written=f"{source.written}/{n}", member=n) for n in names if endings(n)[0] in _known()]
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
