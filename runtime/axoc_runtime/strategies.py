"""What each strategy needs before the model is loaded, and what makes it real on a CPU too."""

from __future__ import annotations

import json
import os
from typing import Any

import torch
import torch.distributed as dist

from axoc_runtime.job import Job


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


def barrier() -> None:
    """All ranks arrive, where there are several."""
    if dist.is_initialized():
        devices = [torch.cuda.current_device()] if dist.get_backend() == "nccl" else None
        dist.barrier(device_ids=devices)


FOREIGN = ("ACCELERATE_", "FSDP_")
"""Environment variables by which accelerate takes settings (accelerate/utils/dataclasses.py)."""


def drop_foreign_settings() -> None:
    """What a shell still holds of an ``accelerate launch`` would change precision or strategy: the bundle alone decides."""
    for name in [n for n in os.environ if n.startswith(FOREIGN)]:
        del os.environ[name]


def restore_numbered_cpus() -> None:
    """accelerate calls the device of a CPU rank ``cpu:0``, and torch.load knows only ``cpu``: resuming would fail."""
    torch.serialization.register_package(
        11, lambda storage: None, lambda storage, location: storage if location.startswith("cpu:") else None
    )


def reduced_each_micro_step() -> dict[str, Any]:
    """Else FSDP2 leaves gradients unreduced until a step's last micro-batch (accelerate's no_sync), and every rank holds all
    of them, whole: the memory that sharding was to save."""
    return {"accelerator_config": {"gradient_accumulation_kwargs": {"sync_each_batch": True}}}


def strategy_arguments(job: Job) -> dict[str, Any]:
    """Keyword arguments of TrainingArguments."""
    strategy, config = job.distributed.strategy, job.distributed.config
    if strategy.startswith("zero"):
        assert config is not None
        return {"deepspeed": json.loads((job.bundle_dir / config).read_text(encoding="utf-8"))}
    if strategy == "fsdp":
        assert config is not None
        return {"fsdp": True, "fsdp_config": fsdp_config(job, config), **reduced_each_micro_step()}
    if strategy == "ddp":
        return {"ddp_find_unused_parameters": False}
    return {}


def fsdp_config(job: Job, config: str) -> dict[str, Any]:
    """The bundle's file in transformers' terms."""
    loaded: dict[str, Any] = json.loads((job.bundle_dir / config).read_text(encoding="utf-8"))
    loaded["version"] = loaded.pop("fsdp_version", 2)
    return loaded


def precision_arguments(job: Job) -> dict[str, bool]:
    """Autocast flags. Under FSDP a mixed precision makes accelerate upcast trained weights to fp32: weights that are
    to be trained in bfloat16 stay so only with it off, and then compute in bfloat16 anyway."""
    mixed, pure = job.distributed.mixed_precision, job.model.dtype == "bfloat16"
    if job.distributed.strategy == "fsdp" and pure:
        mixed = "no"
    return {"bf16": mixed == "bf16", "fp16": mixed == "fp16"}


def force_fsdp_on_cpu(trainer: Any) -> None:
    """accelerate leaves MULTI_CPU out of the kinds for which it takes an FSDP plugin, and then trains with DDP in
    silence (accelerate/state.py, AcceleratorState.__init__). This sets what it would have set."""
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    state = trainer.accelerator.state
    if state.distributed_type == DistributedType.FSDP:
        return
    plugin = FullyShardedDataParallelPlugin(**trainer.args.fsdp_plugin_args)
    if trainer.accelerator.mixed_precision != "no":
        plugin.set_mixed_precision(trainer.accelerator.mixed_precision)
    state.distributed_type = DistributedType.FSDP
    state.fsdp_plugin = plugin
    trainer.is_fsdp_enabled = True


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def device_of(job: Job) -> torch.device:
    if job.distributed.device == "cpu":
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
