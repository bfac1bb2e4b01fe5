"""What makes accelerate shard as planned."""

from __future__ import annotations

from typing import Any

from axoc_runtime.job import Job


def after_accelerator(job: Job, trainer: Any) -> None:
    """What accelerate is told once it is there."""
    if job.distributed.strategy != "fsdp":
        return
    from axoc_runtime.strategies.mesh import has_mesh, place_on_mesh
    from axoc_runtime.strategies.units import shard_in_units

    shard_in_units(job)
    if job.distributed.device == "cpu":
        force_fsdp_on_cpu(trainer)
    if has_mesh(job.distributed):
        place_on_mesh(job, trainer)


def force_fsdp_on_cpu(trainer: Any) -> None:
    """accelerate leaves MULTI_CPU out of the kinds for which it takes an FSDP plugin, and then trains with DDP in
    silence (accelerate/state.py, AcceleratorState.__init__). This sets what it would have set."""
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
    from torch.distributed.fsdp import CPUOffloadPolicy

    state = trainer.accelerator.state
    if state.distributed_type == DistributedType.FSDP:
        return
    plugin = FullyShardedDataParallelPlugin(**trainer.args.fsdp_plugin_args)
    if isinstance(plugin.cpu_offload, CPUOffloadPolicy):
        plugin.cpu_offload = CPUOffloadPolicy(pin_memory=False)  # without an accelerator there is nothing to pin for
    if trainer.accelerator.mixed_precision != "no":
        plugin.set_mixed_precision(trainer.accelerator.mixed_precision)
    state.distributed_type = DistributedType.FSDP
    state.fsdp_plugin = plugin
    trainer.is_fsdp_enabled = True
