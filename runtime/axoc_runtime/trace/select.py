"""The strategy of a job, by name."""

from __future__ import annotations

from axoc_runtime.errors import EXIT_INPUTS, RuntimeFailure
from axoc_runtime.job import Job
from axoc_runtime.trace.fsdp import Sharded
from axoc_runtime.trace.fsdp_offload import OffloadedSharded
from axoc_runtime.trace.liveness import Liveness
from axoc_runtime.trace.strategy import DataParallel, Rank, Strategy
from axoc_runtime.trace.zero_1_2 import ZeroOneTwo
from axoc_runtime.trace.zero_3 import ZeroThree
from axoc_runtime.trace.zero_offload import OffloadedOneTwo, OffloadedThree


def strategy_for(job: Job, live: Liveness, rank: Rank = "fullest") -> Strategy:
    """``rank``: whose memory is followed. Raises RuntimeFailure where the job's settings cannot be traced."""
    name = job.distributed.strategy
    if job.distributed.tensor_parallel > 1 and name != "fsdp":
        fix = "trace it under distributed.type: fsdp, or set distributed.model_parallel_size: 1"
        raise RuntimeFailure(f"tensor parallelism under {name} cannot be traced", EXIT_INPUTS, fix)
    offloads = job.distributed.offload != "none"
    if offloads and not (name.startswith("zero") or name == "fsdp"):
        fix = "trace it under FSDP or a ZeRO stage, set distributed.offload: none, or plan without a trace"
        raise RuntimeFailure(f"offload to the host under {name} cannot be traced yet", EXIT_INPUTS, fix)
    if name in ("zero1", "zero2"):
        return (OffloadedOneTwo if offloads else ZeroOneTwo)(job, live, rank)
    if name == "zero3":
        return (OffloadedThree if offloads else ZeroThree)(job, live)
    if name == "fsdp":
        return (OffloadedSharded if offloads else Sharded)(job, live)
    alone = name == "single" or job.distributed.world_size == 1
    return Strategy(job, live) if alone else DataParallel(job, live)
