"""torchrun turns every rank's exit code into 1: the first rank to fail leaves the real one in a file, for launch.sh."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from axoc_runtime.job import Job

NAME: Final = ".exit-code"


def record(job: Job, code: int) -> None:
    """Does nothing where another rank was first, or nothing can be written: launch.sh then says 14."""
    try:
        job.output.mkdir(parents=True, exist_ok=True)
        with (job.output / NAME).open("x", encoding="ascii") as file:
            file.write(f"{code}\n")
    except OSError:
        pass


def recorded(job: Job) -> int | None:
    try:
        return int((job.output / NAME).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def forget(job: Job) -> None:
    """An earlier run's."""
    Path(job.output / NAME).unlink(missing_ok=True)
