"""``python -m axoc_runtime.preflight.measure JOB.json``: one rank of the measurement, started by ranks.py as torchrun would.

It leaves a JSON object in the file that ``AXOC_MEASURED`` names: figures of this rank, or ``error``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist

from axoc_runtime.failure.explain import first_line
from axoc_runtime.failure.heartbeat import die_with_parent
from axoc_runtime.job import Job, read_job
from axoc_runtime.preflight.speed import MEASURED_VARIABLE, bus_share, hops
from axoc_runtime.strategies.ranks import device_of, rank, world_size

TIMEOUT_SECONDS: Final = 120
AIM_SECONDS: Final = 0.5
"""Of a measurement: enough for a link to reach its pace, and a clock its own."""
FIRST_BYTES: Final = {"cpu": 1 << 16, "cuda": 1 << 22}
LARGEST_BYTES: Final = {"cpu": 1 << 24, "cuda": 1 << 28}
"""Of a message: buckets of gradients have tens of MB. The first, smaller one shows how many are made."""
MATRIX: Final = {"cpu": 256, "cuda": 4096}
REPEATS: Final = (1, 20)


def measure(job: Job) -> dict[str, Any]:
    """Seconds and bytes a second, of this rank, which all take part in."""
    device = device_of(job)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("gloo" if device.type == "cpu" else "nccl", timeout=timedelta(seconds=TIMEOUT_SECONDS))
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    figures: dict[str, Any] = {"product_seconds": _product_seconds(device)}
    per_node = job.distributed.processes_per_node
    nodes, first = world_size() // per_node, rank() // per_node * per_node
    if per_node > 1:
        group = dist.new_group(list(range(first, first + per_node)), use_local_synchronization=True)
        figures["node_bus"] = _bus(device, group, per_node)
        dist.barrier()  # nodes that are done do not disturb those that are not
    if nodes > 1:
        figures["bus"] = _bus(device, None, world_size())
        figures["links"] = _links(device, nodes, per_node)
    dist.barrier()
    return figures


def _product_seconds(device: torch.device) -> float:
    """Of a matrix product, on average over a while: throttling comes and goes, and the run has to live with both."""
    size, dtype = MATRIX[device.type], torch.float32 if device.type == "cpu" else torch.bfloat16
    matrix = torch.ones(size, size, device=device, dtype=dtype)
    for _ in range(3):
        matrix @ matrix
    dist.barrier()
    count, began = 0, _now(device)
    while (now := _now(device)) - began < AIM_SECONDS:
        for _ in range(10):
            matrix @ matrix
        count += 10
    return (now - began) / count if count else AIM_SECONDS


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _bus(device: torch.device, group: Any, ranks: int) -> float:
    """Bus bandwidth of an all-reduce, bytes a second: what each link carries, whatever the number of ranks."""
    seconds, num_bytes = _timed(device, group, lambda buffer: dist.all_reduce(buffer, group=group))
    return bus_share(ranks) * num_bytes / seconds


def _links(device: torch.device, nodes: int, per_node: int) -> list[list[float]]:
    """(from node, to node, bytes a second) of what this rank received: neighbours send in one direction at a time, from each
    of a node's ranks to the rank of the same place in the other, so that all of its adapters carry something."""
    mine, found = rank() // per_node, []
    for hop in hops(nodes):
        peer = next((b - a if a == mine else a - b for a, b in hop if mine in (a, b)), None)
        sends = any(a == mine for a, _ in hop)
        move = _nothing if peer is None else _sender(rank() + peer * per_node, sends)
        seconds, num_bytes = _timed(device, None, move)
        if peer is not None and not sends:
            found.append([mine + peer, mine, num_bytes / seconds])
    return found


def _nothing(_: torch.Tensor) -> None:
    return None


def _sender(peer: int, sends: bool) -> Callable[[torch.Tensor], object]:
    return lambda buffer: dist.send(buffer, peer) if sends else dist.recv(buffer, peer)


def _timed(device: torch.device, group: Any, call: Callable[[torch.Tensor], object]) -> tuple[float, int]:
    """(seconds of one, its bytes): as many, and as large, as the slowest rank makes in the time aimed at."""
    small = torch.ones(FIRST_BYTES[device.type] // 4, device=device)
    call(small)
    first = _slowest(device, group, _repeated(device, group, call, small, 1))
    largest, share = LARGEST_BYTES[device.type], AIM_SECONDS / max(first, 1e-6)
    num_bytes = int(min(largest, max(small.nbytes, small.nbytes * share / 2))) // 4 * 4
    count = int(min(REPEATS[1], max(REPEATS[0], share * small.nbytes / num_bytes)))
    buffer = torch.ones(num_bytes // 4, device=device)
    return _repeated(device, group, call, buffer, count), num_bytes


def _repeated(
    device: torch.device, group: Any, call: Callable[[torch.Tensor], object], buffer: torch.Tensor, count: int
) -> float:
    dist.barrier(group=group)
    began = _now(device)
    for _ in range(count):
        call(buffer)
    return (_now(device) - began) / count


def _slowest(device: torch.device, group: Any, seconds: float) -> float:
    found = torch.tensor([seconds], dtype=torch.float64, device=device)
    dist.all_reduce(found, op=dist.ReduceOp.MAX, group=group)
    return float(found.item())


def main(path: str) -> int:
    die_with_parent(signal.SIGKILL)
    try:
        found = measure(read_job(Path(path)))
    except BaseException as error:  # whatever a library raises, the one that waits for it is to be told
        found = {"error": f"{type(error).__name__}: {first_line(error)}"}
    Path(os.environ[MEASURED_VARIABLE]).write_text(json.dumps(found), encoding="utf-8")
    sys.stdout.flush()
    os._exit(1 if "error" in found else 0)  # destroying a group of which a rank is gone would wait for it


if __name__ == "__main__":
    main(sys.argv[1])
