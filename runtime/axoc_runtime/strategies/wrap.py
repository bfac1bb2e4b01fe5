"""What makes accelerate shard as planned."""

from __future__ import annotations

from typing import Any


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
