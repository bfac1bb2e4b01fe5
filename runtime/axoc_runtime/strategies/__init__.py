"""What each strategy needs before the model is loaded, and what makes it real on a CPU too."""

from axoc_runtime.strategies.arguments import fsdp_config, precision_arguments, strategy_arguments
from axoc_runtime.strategies.environment import leave_no_group, prepare_environment
from axoc_runtime.strategies.ranks import barrier, data_rank, device_of, rank, world_size
from axoc_runtime.strategies.wrap import after_accelerator, force_fsdp_on_cpu

__all__ = [
    "after_accelerator",
    "barrier",
    "data_rank",
    "device_of",
    "force_fsdp_on_cpu",
    "fsdp_config",
    "leave_no_group",
    "precision_arguments",
    "prepare_environment",
    "rank",
    "strategy_arguments",
    "world_size",
]
