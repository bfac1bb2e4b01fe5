"""Ranks that start in a second: a server imports the libraries once and forks them for each run.

A start from nothing spends its time on imports (transformers' Trainer, DeepSpeed), not on what is tested. The ranks are
processes all the same, run the runtime's own ``train``, and can be killed like any other. Without torchrun, nothing else
ends the others when one dies: ``kill`` takes all.
"""

from __future__ import annotations

import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

RUNTIME = Path(__file__).resolve().parent.parent / "runtime"
PRELOADED = (
    "torch", "torch.distributed.checkpoint", "torch.distributed.fsdp", "transformers.trainer", "accelerate", "peft",
    "datasets", "deepspeed", "deepspeed.checkpoint.ds_to_universal", "axoc_runtime.train", "axoc_runtime.prepare",
    "axoc_runtime.checkpoint.resume", "axoc_runtime.objectives.sft",
)  # fmt: skip
LIMIT_SECONDS = 600.0


class Server:
    """One at a time: ``start`` a run, then ``wait`` for it or ``kill`` it. ``more``: modules to import beside the usual."""

    def __init__(self, environment: dict[str, str], *more: str) -> None:
        line = [sys.executable, __file__, *more]
        self.process = subprocess.Popen(line, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pids: list[int] = []
        assert self._read() == "ready"

    def start(
        self, job: Path, log: Path, *options: str, command: str = "train", errors: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> list[int]:  # fmt: skip
        """Processes of the job's command; what they print goes into ``log``, or what is wrong into ``errors``. They start in
        ``environment`` as Python would: with its PYTHONPATH, and with a sitecustomize.py there."""
        world = json.loads(job.read_text())["distributed"]["processes_per_node"] if command == "train" else 1
        run = {"arguments": [command, str(job), *options], "world": world, "environment": environment or {}}
        self._send(run | {"log": str(log), "errors": str(errors or log)})
        self.pids = self._read()
        return self.pids

    def wait(self) -> list[int]:
        """Exit codes by rank; a negative one is the signal that killed it, also where one waits for ever for another."""
        if not select.select([self.process.stdout], [], [], LIMIT_SECONDS)[0]:
            return self.kill()
        codes: list[int] = self._read()
        return codes

    def kill(self) -> list[int]:
        """SIGKILL to every rank that still runs."""
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)  # the server has not yet waited for it: the number is still its own
        return self.wait()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)

    def _send(self, value: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(value) + "\n")
        self.process.stdin.flush()

    def _read(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the server of forked ranks has ended"
        return json.loads(line)


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AXOC_", "PYTHON"))}
    return kept | {"PYTHONPATH": str(RUNTIME), "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}


def serve() -> None:
    import importlib

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the libraries print while they are imported is no answer

    def answer(value: Any) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    for name in (*PRELOADED, *sys.argv[1:]):
        importlib.import_module(name)
    answer("ready")
    for line in sys.stdin:
        run = json.loads(line)
        port = _free_port()
        pids = [_fork(run, rank, port) for rank in range(run["world"])]
        answer(pids)
        for pid in pids:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # all end before any number may be used again
        answer([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids])


def _fork(run: dict[str, Any], rank: int, port: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        for descriptor, name in ((1, "log"), (2, "errors")):
            os.dup2(os.open(run[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
        _enter(run["environment"])
        os.environ |= {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(run["world"]),
            "LOCAL_WORLD_SIZE": str(run["world"]), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
        from axoc_runtime.__main__ import main

        code = main(run["arguments"])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _enter(environment: dict[str, str]) -> None:
    """What Python does of an environment when it starts."""
    os.environ |= environment
    new = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path and path not in sys.path]
    sys.path[:0] = new
    for folder in new:
        if (Path(folder) / "sitecustomize.py").is_file():
            runpy.run_path(str(Path(folder) / "sitecustomize.py"), run_name="sitecustomize")


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


if __name__ == "__main__":
    serve()
