"""Collectives between this machine's devices, by size and number of ranks, alone and beside matrix products."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from axoc_runtime.calibrate.clock import Clock, CpuClock, CudaClock, now, random
from axoc_runtime.calibrate.tables import Point, Table, Value

SIZES: Final = (1 << 12, 1 << 16, 1 << 20, 1 << 22, 1 << 24, 1 << 26, 1 << 28, 1 << 30)
OPERATIONS: Final = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
TIMEOUT_SECONDS: Final = 90


def rank_counts(device: str) -> list[int]:
    """2, 4, 8 … as far as there are devices; one where there is one: a communicator takes memory even then."""
    count = torch.cuda.device_count() if device == "cuda" else 2
    return [n for n in (2, 4, 8, 16) if n <= count] or [1]


def table(*, small: bool, device: str) -> Table:
    return Table(
        name="collectives",
        about="collectives by bytes of the whole (ungathered x ranks) tensor, bf16; beside_matmul: the same while an "
        "8192^3 product runs again and again, and what that product takes then and alone; communicator: bytes of one",
        keys=("ranks",),
        values=("measured",),
        points=[(n,) for n in rank_counts(device)],
        measure=lambda clock, point: (json.dumps(_spawn(int(point[0]), device, small)),),
    )


def flattened(rows: Sequence[Point]) -> dict[str, Any]:
    """The workers' answers as one table."""
    found = [[int(r[0]), *row] for r in rows for row in json.loads(str(r[1]))]
    return {"columns": ["ranks", "operation", "bytes", "value"], "rows": found}


def _spawn(ranks: int, device: str, small: bool) -> list[list[Value]]:
    with tempfile.TemporaryDirectory(prefix="axoc-calibrate-") as folder:
        answer = Path(folder) / "answer.json"
        spawn(_worker, args=(ranks, device, small, folder), nprocs=ranks)  # type: ignore[no-untyped-call]
        rows: list[list[Value]] = json.loads(answer.read_text(encoding="utf-8"))
        return rows


def _worker(rank: int, ranks: int, device: str, small: bool, folder: str) -> None:
    warnings.filterwarnings("ignore")
    os.environ.setdefault("NCCL_NVLS_ENABLE", "0")  # multicast needs rights that containers often lack
    clock: Clock = CudaClock(rank) if device == "cuda" else CpuClock()
    before = _used(clock)
    dist.init_process_group(
        "nccl" if device == "cuda" else "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=ranks,
        timeout=timedelta(seconds=TIMEOUT_SECONDS),
    )
    try:
        rows = _rows(clock, ranks, before, (1 << 12,) if small else SIZES)
        if rank == 0:
            (Path(folder) / "answer.json").write_text(json.dumps(rows), encoding="utf-8")
    finally:
        dist.destroy_process_group()


def _used(clock: Clock) -> int:
    if clock.device.type != "cuda":
        return 0
    torch.ones(1, device=clock.device)
    clock.synchronize()
    free, total = torch.cuda.mem_get_info(clock.device)
    return total - free - torch.cuda.memory_reserved(clock.device)


def _rows(clock: Clock, ranks: int, before: int, sizes: Sequence[int]) -> list[list[Value]]:
    dist.all_reduce(torch.ones(1 << 20, device=clock.device))
    rows: list[list[Value]] = [["communicator", 0, _used(clock) - before]]
    if ranks == 1:
        return rows
    for name in OPERATIONS:
        if name == "all_to_all" and clock.device.type == "cpu":
            continue  # gloo has none for single tensors
        rows += [[name, size, _seconds(clock, _collective(clock, name, ranks, size))] for size in sizes]
    if clock.device.type == "cuda":
        rows += _beside_matmul(clock, ranks, sizes[-2])
    return rows


def _seconds(clock: Clock, call: Callable[[], object]) -> float:
    """The slowest rank's: they leave together, and each has the same number of calls (a batch would not be)."""
    call()
    count, found = 10, []
    for _ in range(3):
        dist.barrier()
        clock.synchronize()
        began = now()
        for _ in range(count):
            call()
        clock.synchronize()
        found.append((now() - began) / count)
    slowest = torch.tensor([sorted(found)[1]], dtype=torch.float64, device=clock.device)
    dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
    return float(slowest.item())


def _collective(clock: Clock, name: str, ranks: int, num_bytes: int) -> Callable[[], object]:
    dtype = torch.bfloat16 if clock.device.type == "cuda" else torch.float32
    whole = torch.ones(num_bytes // dtype.itemsize, device=clock.device, dtype=dtype)
    part = torch.ones(whole.numel() // ranks, device=clock.device, dtype=dtype)
    if name == "all_reduce":
        return lambda: dist.all_reduce(whole)
    if name == "all_gather":
        return lambda: dist.all_gather_into_tensor(whole, part)
    if name == "reduce_scatter":
        return lambda: dist.reduce_scatter_tensor(part, whole)
    other = torch.empty_like(whole)
    return lambda: dist.all_to_all_single(other, whole)


def _beside_matmul(clock: Clock, ranks: int, num_bytes: int) -> list[list[Value]]:
    """Contention: both streams full, each timed over the same span."""
    a = random(clock, 8192, 8192)
    out = torch.empty_like(a)
    alone = _seconds(clock, lambda: torch.mm(a, a, out=out))
    rows: list[list[Value]] = [["matmul_alone", 0, alone]]
    side = torch.cuda.Stream(clock.device)  # type: ignore[no-untyped-call]
    for name in ("all_reduce", "all_gather", "reduce_scatter"):
        collective = _collective(clock, name, ranks, num_bytes)

        def both(collective: Callable[[], object] = collective) -> None:
            with torch.cuda.stream(side):
                for _ in range(8):
                    collective()
            for _ in range(4):
                torch.mm(a, a, out=out)

        rows.append([f"{name} x 8 beside matmul x 4", num_bytes, _seconds(clock, both)])
    return rows
