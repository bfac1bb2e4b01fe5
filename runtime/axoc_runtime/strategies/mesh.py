"""The mesh of a run's ranks, and how accelerate is told of it.

Its axes, outermost first: copies of the model, the shards of one copy, tensor parallelism. torchrun numbers ranks node by
node, so what talks most stays inside a node.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from accelerate import ParallelismConfig
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from axoc_runtime.job import Distributed, Job

AXES = ("dp_replicate", "dp_shard", "tp")
"""accelerate's names: its data loader gives ranks along ``tp`` the same batch."""


class Axes(ParallelismConfig):
    """accelerate flattens the shard axis with one of context parallelism; here it is taken as it is."""

    @property
    def fsdp_dim_names(self) -> list[str]:
        return ["dp_replicate", "dp_shard"] if self.dp_replicate_enabled else ["dp_shard"]


def shape_of(placed: Distributed) -> tuple[int, int, int]:
    """Sizes of the axes."""
    return placed.replicate_degree, placed.shard_degree, placed.tensor_parallel


def has_mesh(placed: Distributed) -> bool:
    """One axis alone needs none: fully_shard makes its own."""
    return placed.strategy == "fsdp" and (placed.replicate_degree > 1 or placed.tensor_parallel > 1)


def mesh_of(job: Job) -> DeviceMesh:
    """Collective the first time. The process group must be there."""
    return _mesh(job.distributed.device, shape_of(job.distributed))


@cache
def _mesh(device: str, shape: tuple[int, int, int]) -> DeviceMesh:
    return init_device_mesh(device, shape, mesh_dim_names=AXES)


def place_on_mesh(job: Job, trainer: Any) -> None:
    """Right after the accelerator was made. accelerate would check the axes against kinds of ranks that leave out those of
    a CPU, and before it knows that they are to be sharded."""
    replicate, shard, tensor = shape_of(job.distributed)
    axes = Axes(dp_replicate_size=replicate, dp_shard_size=shard, tp_size=1)
    axes._set_size("tp", tensor)  # the constructor knows no tensor parallelism beside unsharded copies
    state = trainer.accelerator.state
    state.parallelism_config, state.device_mesh = axes, mesh_of(job)
    # the layers are split already (tensor.py); accelerate 1.15 looks for a name that transformers 5.17 no longer has
    trainer.accelerator._prepare_tp = lambda *prepared: prepared
    if tensor > 1:
        trainer.model._tp_size = tensor  # the Trainer's count of sequences a step
