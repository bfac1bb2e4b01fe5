"""The name of the prepared folder: a digest of all that its rows depend on."""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from axoc_runtime import __version__
from axoc_runtime.files import write_json
from axoc_runtime.ingest.base import Reader, Source
from axoc_runtime.ingest.sources import parts
from axoc_runtime.job import Job
from axoc_runtime.models.tokenizer import tokenizer_source

FORMAT: Final = 4
"""Of shards and indices: raised when they change."""
REMEMBERED: Final = "digests.json"
SETTLED_NANOSECONDS: Final = 2_000_000_000
"""A file that was written so shortly ago may be written again within one tick of its file system's clock."""


def digest_of(job: Job, *, content: bool = True) -> str:
    """``content``: of the data; else their sizes and times, for data that are too large to be read once more."""
    memory = Memory(job.output / ".prepared" / REMEMBERED, content=content)
    depends = {
        "runtime": [__version__, FORMAT],
        "objective": job.training.objective,
        "completion": job.training.grpo and job.training.grpo.max_completion_length,
        "datasets": [asdict(d) for d in job.datasets],
        "data": [[_fingerprint(*part, memory) for part in parts(job, d)] for d in job.datasets],
        "tokenizer": _tokenizer(job, memory),
        "plugins": plugins(job),
    }
    memory.keep()
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()


class Memory:
    """Digests of files that have not changed since: device, inode, size and both times are as they were.

    Reading a data set of some gigabytes again takes longer than all else that a second start does.
    """

    def __init__(self, path: Path, *, content: bool = True) -> None:
        self.path, self.content = path, content
        self.found: dict[str, list[Any]] = {}
        self.used: dict[str, list[Any]] = {}
        try:
            self.found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return  # it is only a memory

    def digest(self, path: Path) -> str:
        """SHA-256 of the content. Raises OSError."""
        real = path.resolve()
        seen = _state(real)
        if not self.content:
            return f"{seen[2]} bytes of {seen[3]}"
        known = self.found.get(str(real))
        if known is not None and known[:-1] == seen:
            made = str(known[-1])
        else:
            with real.open("rb") as stream:
                made = hashlib.file_digest(stream, "sha256").hexdigest()
        if _state(real) == seen and max(seen[3], seen[4]) + SETTLED_NANOSECONDS < time.time_ns():
            self.used[str(real)] = [*seen, made]
        return made

    def keep(self) -> None:
        if self.content and self.used != self.found:
            write_json(self.path, self.used)


def _state(path: Path) -> list[int]:
    found = os.stat(path)
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _fingerprint(reader: Reader, source: Source, memory: Memory) -> str:
    own = type(reader).fingerprint is not Reader.fingerprint or source.url is not None
    told = reader.fingerprint(source) if own or not source.path.is_file() else memory.digest(source.path)
    return f"{reader.name}:{source.member or ''}:{told}"


def _tokenizer(job: Job, memory: Memory) -> list[str]:
    source = Path(tokenizer_source(job))
    changed = json.dumps(asdict(job.model.tokenizer), sort_keys=True)
    if source.is_dir():
        files = sorted(p for p in source.iterdir() if p.is_file() and p.suffix in (".json", ".model", ".txt", ".jinja"))
        return [changed, *(f"{p.name}:{memory.digest(p)}" for p in files)]
    if source.is_file():
        return [changed, f"{source.name}:{memory.digest(source)}"]
    return [changed, f"{job.model.id}@{job.model.revision}"]


def plugins(job: Job) -> list[str]:
    """Plugins read and convert rows: another version of one may do it otherwise."""
    folder = job.bundle_dir / "plugins"
    files = sorted(p for p in folder.rglob("*.py") if "__pycache__" not in p.parts)
    return [f"{p.relative_to(folder).as_posix()}:{hashlib.sha256(p.read_bytes()).hexdigest()}" for p in files]
