"""Which process this is, of how many, on which device; which of them share a batch."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist

from axoc_runtime.job import Job


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def device_of(job: Job) -> torch.device:
    if job.distributed.device == "cpu":
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def barrier() -> None:
    """All ranks arrive, where there are several."""
    if dist.is_initialized():
        devices = [torch.cuda.current_device()] if dist.get_backend() == "nccl" else None
        dist.barrier(device_ids=devices)


def data_rank(job: Job) -> int:
    """Tensor-parallel ranks, which are neighbours, share a batch."""
    return rank() // job.distributed.tensor_parallel
