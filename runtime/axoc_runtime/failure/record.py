"""torchrun turns every rank's exit code into 1: the first rank to fail leaves the real one in a file, for launch.sh."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

from axoc_runtime.job import Job

NAME: Final = ".exit-code"


def record(job: Job, code: int) -> None:
    """Does nothing where another rank was first, or nothing can be written: launch.sh then says 14."""
    path = job.output / NAME
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="ascii") as file:
            try:
                file.write(f"{code}\n")
                file.flush()
            except OSError:  # a full disk takes the name of a file, and nothing in it
                path.unlink()


def recorded(job: Job) -> int | None:
    try:
        return int((job.output / NAME).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def forget(job: Job) -> None:
    """An earlier run's."""
    Path(job.output / NAME).unlink(missing_ok=True)
