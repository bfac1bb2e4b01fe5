"""``python -m axoc_runtime.torchrun ...``: torchrun, with a line for each failure in place of its tracebacks, and a watch."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any, Final

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

from axoc_runtime.errors import EXIT_NETWORK, EXIT_OUT_OF_MEMORY, EXIT_TRAINING, RuntimeFailure
from axoc_runtime.failure.explain import first_line
from axoc_runtime.failure.heartbeat import die_with_parent
from axoc_runtime.failure.occupied import occupied
from axoc_runtime.failure.record import forget, record, recorded
from axoc_runtime.failure.watch import LIMIT_VARIABLE, Watch, limit_seconds
from axoc_runtime.hosts.training import LOST_FIX, RESUME, Hosts
from axoc_runtime.job import Job, read_job
from axoc_runtime.upload.follow import Follower

GRACE_SECONDS: Final = "10"
"""Between the signal that asks the other ranks to end and the one that makes them."""
HINTS: Final = {
    "SIGKILL": ": by hand, or by the kernel because host memory ran out",
    "SIGBUS": ": shared memory or a mapped file ran out of room (containers: a larger --shm-size)",
    "SIGABRT": ": by a library that gave up, see its lines above",
    "SIGSEGV": ": in native code",
}


def told(rank: int, exit_code: int) -> str:
    """What became of a rank: negative codes are signals."""
    if exit_code >= 0:
        return f"rank {rank} ended with code {exit_code}"
    name = signal.Signals(-exit_code).name
    return f"rank {rank} was killed by {name}{HINTS.get(name, '')}"


def run() -> int:
    """0, or the code of what went wrong (docs/job.md)."""
    die_with_parent(signal.SIGTERM)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as torchrun would, with a banner
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", GRACE_SECONDS)
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    job = job_of(sys.argv)
    try:
        with occupied(job):
            return _run(job)
    except RuntimeFailure as failure:  # not recorded: the folder, and what is recorded there, is another run's
        print(f"axoc: {failure.render()}", file=sys.stderr, flush=True)
        return failure.exit_code


def _run(job: Job | None) -> int:
    if job is not None:
        forget(job)
    watch = Watch(limit_seconds())
    try:
        hosts = Hosts(job, watch, _end)
    except RuntimeFailure as failure:
        return _end(job, failure.exit_code, str(failure), failure.fix or RESUME)
    with hosts:
        code, message = _train(job, watch, hosts)
        hosts.close(code, message)
    return code


def _train(job: Job | None, watch: Watch, hosts: Hosts) -> tuple[int, str]:
    """The exit code, and what other hosts are told of it."""
    kills = oom_kills()
    try:
        with Follower(job, job_file(sys.argv)), watch:
            main()
    except ChildFailedError as error:
        if hosts.loss is not None:
            return _end(job, hosts.loss.code, hosts.loss.message, LOST_FIX), ""
        return failed(job, watch, error.failures, oom_kills() > kills)
    except SignalException as error:
        return 128 + int(error.sigval), f"it was ended by {signal.Signals(error.sigval).name}"
    except (OSError, RuntimeError) as error:  # its store, or a port of it
        if hosts.loss is None:
            message = f"torchrun could not start the processes: {first_line(error)}"
            return _end(job, EXIT_NETWORK, message, "see whether MASTER_PORT is free on node 0, and reached"), message
        return _end(job, hosts.loss.code, hosts.loss.message, LOST_FIX), ""
    return 0, ""


def failed(job: Job | None, watch: Watch, failures: dict[int, Any], host_memory_ran_out: bool) -> tuple[int, str]:
    """Tells it, where the rank has not done so itself. Gives the exit code and the message."""
    if watch.message is not None:
        message = f"{watch.message}{_stacks(job, watch)}"
        return _end(job, EXIT_TRAINING, message, f"{RESUME}; {LIMIT_VARIABLE} is the limit"), watch.message
    rank, failure = root(failures)
    code = recorded(job) if job is not None else None
    if code is not None:
        return code, told(rank, failure.exitcode)
    if host_memory_ran_out and failure.exitcode == -signal.SIGKILL:
        message = f"rank {rank} was killed by the kernel: host memory ran out"
        fix = f"fewer processes on a host, less offload, or more host memory, and plan again; {RESUME}"
        return _end(job, EXIT_OUT_OF_MEMORY, message, fix), message
    message = told(rank, failure.exitcode)
    return _end(job, EXIT_TRAINING, message, RESUME), message


def root(failures: dict[int, Any]) -> tuple[int, Any]:
    """The rank that ended first. One that a signal killed was first: the others have lost it, and say so with a code."""
    killed = {rank: f for rank, f in failures.items() if f.exitcode < 0 and f.exitcode != -signal.SIGTERM}
    return min((killed or failures).items(), key=lambda item: item[1].timestamp)


def _end(job: Job | None, code: int, message: str, fix: str) -> int:
    print(f"axoc: {message}\n  fix: {fix}", file=sys.stderr, flush=True)
    if job is not None:
        record(job, code)
    return code


def _stacks(job: Job | None, watch: Watch) -> str:
    """Kept in a file, which this names."""
    if job is None or not watch.stacks:
        return ""
    path = job.output / "logs" / "stacks.txt"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(watch.stacks, encoding="utf-8")
    except OSError:
        return ""
    return f"; where each thread was: {path}"


def job_file(arguments: list[str]) -> Path | None:
    """Of ``... train JOB.json``."""
    after = arguments.index("train") + 1 if "train" in arguments else len(arguments)
    return Path(arguments[after]) if after < len(arguments) else None


def job_of(arguments: list[str]) -> Job | None:
    """One that cannot be read is left to the ranks, which say why."""
    path = job_file(arguments)
    try:
        return None if path is None else read_job(path)
    except RuntimeFailure:
        return None


def oom_kills() -> int:
    """By the kernel in this control group so far (cgroup version 2, memory.events)."""
    try:
        lines = Path("/sys/fs/cgroup/memory.events").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(n) for key, n in (line.split() for line in lines) if key == "oom_kill")


if __name__ == "__main__":
    sys.exit(run())
