"""The marker of a complete checkpoint, which is its manifest too: ``checkpoint-N/.axoc-complete``, a JSON object.

    schema_version  1
    global_step     the N of the folder's name
    strategy        of the run that wrote it; ``world_size`` its processes
    same            what must be equal for a run to go on from it (complete.py)
    resume          the plan's resume contract, as in job.json: where else it may go on, and why
    files           path relative to the folder, with "/": {"bytes": size, "sha256": lower-case hex}

``files`` names every file but the marker. The marker is written last, on disk before the folder gets its name
``checkpoint-N``: a folder of that name is whole, whatever was killed and when. Who copies a checkpoint copies the marker last.

Standard library only: what reads checkpoints needs no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

MARKER: Final = ".axoc-complete"
SCHEMA_VERSION: Final = 1
READERS: Final = 4
"""Threads that hash: SHA-256 and reads both release the interpreter's lock."""


@dataclass(frozen=True, kw_only=True)
class FileDigest:
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    global_step: int
    strategy: str
    world_size: int
    same: dict[str, Any]
    resume: dict[str, Any]
    files: dict[str, FileDigest]


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """On disk when this returns: beside first, then renamed."""
    value = {"schema_version": SCHEMA_VERSION, **asdict(manifest)}
    beside = folder / f"{MARKER}.new"
    with beside.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1, sort_keys=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    beside.replace(folder / MARKER)
    sync_folder(folder)


def read_manifest(folder: Path) -> Manifest | None:
    """None where there is no marker, or one that this version does not read: the folder then counts for nothing."""
    try:
        value = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        if value.pop("schema_version") != SCHEMA_VERSION:
            return None
        files = {_inside(path): FileDigest(**digest) for path, digest in value.pop("files").items()}
        return Manifest(files=files, **value)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _inside(path: str) -> str:
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts:
        raise ValueError(f"{path} lies outside of its checkpoint")
    return path


def files_of(folder: Path) -> list[str]:
    """Every file in it but the marker, relative, in order."""
    found = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return sorted(path for path in found if path not in (MARKER, f"{MARKER}.new"))


def digests(folder: Path, paths: Iterable[str], *, durable: bool = False) -> dict[str, FileDigest]:
    """Of these files. ``durable``: each is on disk when this returns, its folder's entry too."""

    def one(path: str) -> tuple[str, FileDigest]:
        with (folder / path).open("rb") as file:
            if durable:
                os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return path, FileDigest(bytes=file.tell(), sha256=digest)

    listed = list(paths)
    with ThreadPoolExecutor(READERS) as readers:
        found = dict(readers.map(one, listed))
    if durable:
        for parent in {(folder / path).parent for path in listed}:
            sync_folder(parent)
    return found


def damage(folder: Path, manifest: Manifest, paths: Iterable[str]) -> list[str]:
    """What is wrong with these files, a line each that names the file."""
    problems, readable = [], []
    for path in paths:
        expected, file = manifest.files[path], folder / path
        if not file.is_file():
            problems.append(f"{path} is missing")
        elif file.stat().st_size != expected.bytes:
            problems.append(f"{path} has {file.stat().st_size:,} bytes, {expected.bytes:,} were written")
        else:
            readable.append(path)
    for path, found in digests(folder, readable).items():
        if found != manifest.files[path]:
            problems.append(f"{path} does not have the SHA-256 it was written with")
    return problems


def sync_folder(folder: Path) -> None:
    """A renamed or new file survives a power cut only once its folder's entry is on disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
