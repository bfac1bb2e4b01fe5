"""``python -m axoc_runtime preflight|prepare|train|finish JOB.json [--resume]``. Failures end in one line and a code."""

from __future__ import annotations

import os
import sys
import time
import traceback
from pathlib import Path
from typing import Final

from axoc_runtime.errors import (
    EXIT_DATA,
    EXIT_INPUTS,
    EXIT_INTERRUPTED,
    EXIT_OUT_OF_MEMORY,
    EXIT_PREFLIGHT,
    EXIT_TRAINING,
    RuntimeFailure,
)
from axoc_runtime.job import Job, read_job
from axoc_runtime.quiet import hush

UNEXPECTED: Final = {"preflight": EXIT_PREFLIGHT, "prepare": EXIT_DATA, "train": EXIT_TRAINING, "finish": EXIT_TRAINING}
FIRST_RANK_SPEAKS_SECONDS: Final = 5.0
USAGE: Final = "usage: python -m axoc_runtime preflight|prepare|train|finish JOB.json [--resume|--fresh]"


def main(arguments: list[str]) -> int:
    if len(arguments) < 2 or arguments[0] not in UNEXPECTED or not set(arguments[2:]) <= {"--resume", "--fresh"}:
        print(USAGE, file=sys.stderr)
        return 2
    command = arguments[0]
    try:
        job = read_job(Path(arguments[1]))
    except RuntimeFailure as failure:
        return _tell(failure)
    try:
        dispatch(command, job, resume="--resume" in arguments, fresh="--fresh" in arguments)
    except KeyboardInterrupt:
        return _record(job, EXIT_INTERRUPTED)
    except RuntimeFailure as failure:
        return _record(job, _tell(failure))
    except BaseException as error:  # whatever a library raises: the trace goes to a file, a line to the user
        if isinstance(error, SystemExit) and not error.code:
            return 0
        return _record(job, _unexpected(job, command, error))
    return 0


def dispatch(command: str, job: Job, *, resume: bool, fresh: bool) -> None:
    """Each command imports only what it needs."""
    hush(job)
    if job.distributed.device == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else DeepSpeed looks for a GPU and says that there is none
    if command == "preflight":
        from axoc_runtime.preflight import run as preflight

        preflight(job)
    elif command == "prepare":
        from axoc_runtime.prepare import run as prepare

        prepare(job)
    elif command == "train":
        from axoc_runtime.train import run as train

        train(job, resume=resume, fresh=fresh)
    else:
        from axoc_runtime.finish import run as finish

        finish(job)


def _tell(failure: RuntimeFailure) -> int:
    """What every rank finds, one of them says. The first rank speaks at once, and torchrun then ends the others: one
    that is still there after a while found something of its own."""
    rank = os.environ.get("RANK")
    if rank not in (None, "0") and failure.exit_code in (EXIT_INPUTS, EXIT_DATA):
        time.sleep(FIRST_RANK_SPEAKS_SECONDS)
    where = "" if rank is None else f"rank {rank}: "
    print(f"axoc: {where}{failure.render()}", file=sys.stderr, flush=True)
    return failure.exit_code


def _unexpected(job: Job, command: str, error: BaseException) -> int:
    """Out of memory is told from other failures by its type, or by what the drivers call it."""
    rank = os.environ.get("RANK", "0")
    text = "".join(traceback.format_exception(error))
    log = job.output / "logs" / f"{command}-rank{rank}.log"
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(text, encoding="utf-8")
    except OSError:
        print(text, file=sys.stderr)
    first = (str(error).strip().splitlines() or [""])[0][:300]
    print(
        f"axoc: rank {rank}: {command} failed: {type(error).__name__}: {first}\n  see: {log}",
        file=sys.stderr,
        flush=True,
    )
    return EXIT_OUT_OF_MEMORY if out_of_memory(error) else UNEXPECTED[command]


def out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and ("out of memory" in str(error) or "can't allocate memory" in str(error))


def _record(job: Job, code: int) -> int:
    """torchrun turns every worker's code into 1: the first rank to fail leaves the real one for launch.sh."""
    if os.environ.get("RANK") is None:
        return code
    try:
        job.output.mkdir(parents=True, exist_ok=True)
        with (job.output / ".exit-code").open("x", encoding="ascii") as record:
            record.write(f"{code}\n")
    except OSError:
        pass  # another rank was first, or the disk is full: launch.sh then says 14
    return code


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    if code and os.environ.get("RANK") is not None:
        os._exit(code)  # a rank that failed must not wait at exit for collectives that never come
    sys.exit(code)
