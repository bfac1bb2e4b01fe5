"""``python -m axoc_runtime preflight|fetch|prepare|train|finish|upload JOB.json``. Failures end in one line and a code."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Final

from axoc_runtime.errors import (
    EXIT_DATA,
    EXIT_INTERRUPTED,
    EXIT_PREFLIGHT,
    EXIT_TRAINING,
    EXIT_UPLOAD,
    RuntimeFailure,
)
from axoc_runtime.failure import heartbeat
from axoc_runtime.failure.record import record
from axoc_runtime.job import Job, read_job
from axoc_runtime.quiet import hush

UNEXPECTED: Final = {
    "preflight": EXIT_PREFLIGHT,
    "fetch": EXIT_PREFLIGHT,
    "prepare": EXIT_DATA,
    "train": EXIT_TRAINING,
    "finish": EXIT_TRAINING,
    "upload": EXIT_UPLOAD,
}
"""Command -> exit code of a failure that nothing here knows."""
OPTIONS: Final = {"--resume", "--fresh", "--follow"}
FIRST_RANK_SPEAKS_SECONDS: Final = 5.0
USAGE: Final = (
    "usage: python -m axoc_runtime preflight|fetch|prepare|train|finish|upload JOB.json [--resume|--fresh|--follow]"
)


def main(arguments: list[str]) -> int:
    if len(arguments) < 2 or arguments[0] not in UNEXPECTED or not set(arguments[2:]) <= OPTIONS:
        print(USAGE, file=sys.stderr)
        return 2
    command = arguments[0]
    try:
        job = read_job(Path(arguments[1]))
    except RuntimeFailure as failure:
        return _tell(failure)
    try:
        dispatch(command, job, options=set(arguments[2:]))
    except KeyboardInterrupt:
        return _record(job, EXIT_INTERRUPTED)
    except RuntimeFailure as failure:
        return _record(job, _tell(failure))
    except BaseException as error:  # whatever a library raises: the trace goes to a file, a line to the user
        if isinstance(error, SystemExit) and not error.code:
            return 0
        return _record(job, _unexpected(job, command, error))
    return 0


def dispatch(command: str, job: Job, *, options: set[str]) -> None:
    """Each command imports only what it needs."""
    resume, fresh = "--resume" in options, "--fresh" in options
    hush(job)
    if job.distributed.device == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else DeepSpeed looks for a GPU and says that there is none
    if command == "preflight":
        from axoc_runtime.preflight import run as preflight

        preflight(job)
    elif command == "fetch":
        from axoc_runtime.upload.commands import fetch

        fetch(job, resume=resume, fresh=fresh)
    elif command == "prepare":
        from axoc_runtime.prepare import run as prepare

        prepare(job, alone=True)
    elif command == "train":
        from axoc_runtime.train import run as train

        train(job, resume=resume, fresh=fresh)
    elif command == "finish":
        from axoc_runtime.finish import run as finish

        finish(job)
    elif "--follow" in options:
        from axoc_runtime.upload.follow import follow

        follow(job)
    else:
        from axoc_runtime.upload.commands import upload

        upload(job)


def _tell(failure: RuntimeFailure) -> int:
    """What every rank finds, one of them says. The first rank speaks at once, and torchrun then ends the others: one
    that is still there after a while found something of its own."""
    rank = os.environ.get("RANK")
    if rank not in (None, "0") and failure.everywhere:
        time.sleep(FIRST_RANK_SPEAKS_SECONDS)
    where = "" if rank is None else f"rank {rank}: "
    print(f"axoc: {where}{failure.render()}", file=sys.stderr, flush=True)
    return failure.exit_code


def _unexpected(job: Job, command: str, error: BaseException) -> int:
    """The trace goes to a file, what happened to the user."""
    from axoc_runtime.failure.explain import explain

    log = _logged(job, command, error)
    code = _tell(explain(job, command, error, UNEXPECTED[command]))
    print(f"  see: {log}", file=sys.stderr, flush=True)
    return code


def _logged(job: Job, command: str, error: BaseException) -> Path:
    """In the output folder, or, where that is full or read-only, where temporary files are."""
    name = f"{command}-rank{os.environ.get('RANK', '0')}.log"
    text = "".join(traceback.format_exception(error))
    for folder in (job.output / "logs", Path(tempfile.gettempdir()) / f"axoc-{os.getuid()}"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
            return folder / name
        except OSError:
            continue
    print(text, file=sys.stderr)
    return Path(os.devnull)


def _record(job: Job, code: int) -> int:
    if os.environ.get("RANK") is not None:
        record(job, code)
    return code


def _end() -> None:
    """After all that others registered to run at exit, and in place of the interpreter's last step: freeing torch's
    modules takes time, and a thread of a library that then wants the interpreter's lock aborts a process that is done."""
    with suppress(OSError, ValueError):  # nobody reads any more, or it was closed
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    code = 1
    atexit.register(_end)
    if "RANK" in os.environ:
        heartbeat.die_with_parent(signal.SIGKILL)
        heartbeat.begin(int(os.environ["RANK"]))
    code = main(sys.argv[1:])
    if code and "RANK" in os.environ:
        _end()  # a rank that failed must not wait at exit for collectives that never come
    sys.exit(code)
