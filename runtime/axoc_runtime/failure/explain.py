"""An error that a library raised, as what happened and what to do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from axoc_runtime.errors import EXIT_TRAINING, RuntimeFailure
from axoc_runtime.failure import disk, memory
from axoc_runtime.failure.activity import NOW
from axoc_runtime.job import Job

LOST_PEER: Final = (
    "Connection closed by peer",  # gloo/transport/tcp/pair.cc
    "Connection reset by peer",
    "Broken pipe",
    "remote process exited or there was a network error",  # NCCL's ncclRemoteError
    "NCCL communicator was aborted",
)
LAUNCHER_SPEAKS_SECONDS: Final = 20.0
"""The launcher ends the ranks of a node within this time of the first one's end."""


def explain(job: Job, command: str, error: BaseException, unexpected: int) -> RuntimeFailure:
    """``unexpected``: the exit code of what is not known. Where another rank of this node has ended, its end is what is to
    be told: this waits to be ended too, and comes back only where it was a rank of another node."""
    if out_of_memory(error):
        return memory.explain(job, error)
    if disk.full(error):
        return disk.explain(job, error)
    if command == "train" and lost_peer(error):
        time.sleep(LAUNCHER_SPEAKS_SECONDS)
        message = f"lost another rank {NOW}: {first_line(error)}"
        return RuntimeFailure(message, EXIT_TRAINING, "see the other nodes' output; --resume goes on from a checkpoint")
    where = f" {NOW}" if command == "train" else ""
    return RuntimeFailure(f"{command} failed{where}: {type(error).__name__}: {first_line(error)}", unexpected)


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error and those it came from."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or found.__context__


def out_of_memory(error: BaseException) -> bool:
    """Told from other failures by its type, or by what the drivers call it."""
    return any(_out_of_memory(e) for e in chain(error))


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and ("out of memory" in str(error) or "can't allocate memory" in str(error))


def lost_peer(error: BaseException) -> bool:
    return any(sign in str(e) for e in chain(error) if isinstance(e, (RuntimeError, OSError)) for sign in LOST_PEER)


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300]
