"""One run at a time writes an output folder: a second one would train over the first one's checkpoints.

The process that starts the ranks of the first host holds a lock on a file there for as long as they run. The kernel lets go of it with
the process, however that ends, so nothing is left behind that would have to be removed by hand.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import IO, Final

from axoc_runtime.errors import EXIT_PREFLIGHT, RuntimeFailure
from axoc_runtime.hosts.place import host_name, is_dynamic
from axoc_runtime.job import Job

NAME: Final = ".running"
FIX: Final = "wait for it or end it, or set another output_dir and plan again"


def is_first_host(job: Job) -> bool:
    """Not where hosts come and go: none of them is the first for good."""
    return not is_dynamic() and (job.distributed.nodes == 1 or os.environ.get("NODE_RANK") == "0")


def occupant(job: Job) -> str | None:
    """Who writes the output folder now, in words; None where nobody does."""
    with suppress(OSError), (job.output / NAME).open("r", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _told(job, file)
    return None


@contextmanager
def occupied(job: Job | None) -> Iterator[None]:
    """The output folder is this process's meanwhile. Raises RuntimeFailure where it is another's. A folder that cannot be written, or
    a file system without locks, is no reason to stop here."""
    file = None if job is None or not is_first_host(job) else _opened(job)
    if file is None or job is None:
        yield
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeFailure(_told(job, file), EXIT_PREFLIGHT, FIX) from None
        except OSError:
            yield
            return
        _write(file, {"pid": os.getpid(), "host": host_name(), "since": datetime.now().isoformat(" ", "seconds")})
        yield
        _write(file, {})


def _opened(job: Job) -> IO[str] | None:
    try:
        job.output.mkdir(parents=True, exist_ok=True)
        return (job.output / NAME).open("a+", encoding="utf-8")
    except OSError:
        return None


def _write(file: IO[str], value: dict[str, object]) -> None:
    with suppress(OSError):  # a full disk: the lock holds all the same
        file.truncate(0)
        file.write(json.dumps(value) + "\n")
        file.flush()


def _told(job: Job, file: IO[str]) -> str:
    who = ""
    with suppress(OSError, ValueError, KeyError, TypeError):
        file.seek(0)
        found = json.loads(file.read())
        who = f": process {found['pid']} on {found['host']}, since {found['since']}"
    return f"another run writes to {job.output}{who}"
