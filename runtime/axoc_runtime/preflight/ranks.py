"""Starts this node's ranks of the measurement and waits for what they found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from axoc_runtime.hosts.place import Place
from axoc_runtime.job import Job
from axoc_runtime.preflight.speed import MEASURED_VARIABLE

LIMIT_SECONDS: Final = 300.0
"""For all of it: a group that cannot be made gives up after 120 s."""
STRAGGLING_SECONDS: Final = 20.0
"""For the others, once one has failed."""


def measured(job: Job, place: Place) -> list[dict[str, Any]]:
    """Of each rank of this node, which measures with those of all nodes of ``place``: its figures, or why there are none."""
    with tempfile.TemporaryDirectory(prefix="axoc-measure-") as folder:
        files = [Path(folder) / f"{local}.json" for local in range(job.distributed.processes_per_node)]
        started = [_start(job, place, local, file) for local, file in enumerate(files)]
        try:
            _wait(started)
        finally:
            for process in started:
                process.kill()
                process.wait()
        return [_read(file) for file in files]


def _start(job: Job, place: Place, local: int, file: Path) -> subprocess.Popen[bytes]:
    per_node = job.distributed.processes_per_node
    environment = {
        **os.environ, MEASURED_VARIABLE: str(file), "RANK": str(place.node * per_node + local),
        "LOCAL_RANK": str(local), "WORLD_SIZE": str(place.nodes * per_node), "MASTER_ADDR": place.address,
        "MASTER_PORT": str(place.port),
        "AXOC_BASE_DIR": str(job.base), "NCCL_DEBUG": "ERROR", "TORCH_CPP_LOG_LEVEL": "ERROR",
    }  # fmt: skip
    line = [sys.executable, "-m", "axoc_runtime.preflight.measure", str(job.bundle_dir / "job.json")]
    return subprocess.Popen(line, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _wait(started: list[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while any(p.poll() is None for p in started) and time.monotonic() < deadline:
        if any(p.poll() for p in started):
            deadline = min(deadline, time.monotonic() + STRAGGLING_SECONDS)
        time.sleep(0.05)


def _read(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {"error": "it gave no answer in time"}
