"""The process before anything builds a group or a model: whose settings count, which devices and groups there are."""

from __future__ import annotations

import os

import torch

from axoc_runtime.job import Job

FOREIGN = ("ACCELERATE_", "FSDP_")
"""Environment variables by which accelerate takes settings (accelerate/utils/dataclasses.py)."""


def prepare_environment(job: Job) -> None:
    """Before anything builds a process group or a model.

    ZeRO-3 partitions while the model is loaded (zero.Init), and asks DeepSpeed for the world size: without a process
    group it sees one rank, so DeepSpeed's own initialization comes first.
    """
    drop_foreign_settings()
    if job.distributed.device == "cpu":
        restore_numbered_cpus()
    if job.distributed.strategy == "single":
        leave_no_group()
    if job.distributed.strategy == "fsdp" and job.distributed.offload != "none":
        reduce_on_the_host()
    if not job.distributed.strategy.startswith("zero"):
        return
    os.environ.setdefault("RANK", "0")  # one process: torchrun sets these, a bare start does not
    os.environ.setdefault("LOCAL_RANK", "0")
    os.environ.setdefault("WORLD_SIZE", "1")
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29531")
    import deepspeed

    # DeepSpeed would compile a shared-memory all-reduce for CPU ranks at the first start: two minutes, a C++ compiler, and
    # a failure where the environment's path holds a space (its linker options are not quoted). Gloo needs none of these.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed("gloo" if job.distributed.device == "cpu" else "nccl")


def leave_no_group() -> None:
    """One process needs no process group, whose communicator would take 0.6 GiB of the device. accelerate makes one where
    torchrun has set LOCAL_RANK; without it, Trainer would split batches over all devices that it sees, so it sees one."""
    local = int(os.environ.pop("LOCAL_RANK", "0"))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = visible.split(",") if visible else [str(local)]
    os.environ["CUDA_VISIBLE_DEVICES"] = devices[min(local, len(devices) - 1)]


def drop_foreign_settings() -> None:
    """What a shell still holds of an ``accelerate launch`` would change precision or strategy: the bundle alone decides."""
    for name in [n for n in os.environ if n.startswith(FOREIGN)]:
        del os.environ[name]


def reduce_on_the_host() -> None:
    """The norm of gradients that FSDP2 has offloaded is summed on the host, for which NCCL has no ranks: accelerate makes
    gloo's beside it where these two ask for it (accelerate/state.py, PartialState.__init__)."""
    os.environ["ACCELERATE_USE_FSDP"] = os.environ["FSDP_OFFLOAD_PARAMS"] = "true"


def restore_numbered_cpus() -> None:
    """accelerate calls the device of a CPU rank ``cpu:0``, and torch.load knows only ``cpu``: resuming would fail."""
    torch.serialization.register_package(
        11, lambda storage: None, lambda storage, location: storage if location.startswith("cpu:") else None
    )
