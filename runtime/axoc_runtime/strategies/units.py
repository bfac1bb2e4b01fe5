"""FSDP2's units: blocks that are gathered and reduced together. The plan says how many to a unit, in config/fsdp.json."""

from __future__ import annotations

from typing import Any, Final

import torch
from accelerate import accelerator as library
from accelerate.utils import fsdp_utils
from accelerate.utils.fsdp_utils import fsdp2_prepare_model

from axoc_runtime.job import Job
from axoc_runtime.models.architecture import unknown
from axoc_runtime.models.load import decoder_blocks
from axoc_runtime.strategies.arguments import read_config

FIND_FINAL_NORM: Final = fsdp_utils._find_final_norm


def shard_in_units(job: Job) -> None:
    """From now on accelerate shards a model so. It has one unit a block, or one a module of a size, and no place to say
    that several blocks are one."""
    library.fsdp2_prepare_model = lambda accelerator, model: prepared_in_units(job, accelerator, model)


def prepared_in_units(job: Job, accelerator: Any, model: Any) -> Any:
    """Blocks first; accelerate goes on with what is not sharded yet: embedding, final norm and head, and the root."""
    from torch.distributed.fsdp import FSDPModule, fully_shard

    fsdp_utils._find_final_norm = final_norm
    if adapts_low_weights(job):
        accelerator.state.fsdp_plugin.mixed_precision_policy = adapters_policy()
    if (blocks_per_unit(job) > 1 or unknown(job)) and not isinstance(model, FSDPModule):
        if accelerator.mixed_precision != "no":
            raise_trained(model)
        options = sharding_options(accelerator)
        for unit in units(job, model):
            fully_shard(unit, **options)
        # which has given the blocks another class: accelerate, which is to pass over them, looks for them by its name
        names = sorted({type(block).__name__ for block in decoder_blocks(job, model)})
        accelerator.state.fsdp_plugin.transformer_cls_names_to_wrap = names
    return fsdp2_prepare_model(accelerator, model)


def final_norm(model: Any) -> Any:
    """accelerate gathers it together with the head, whose weight a fused loss then finds whole; but it does not look for it
    behind PEFT's wrapper (accelerate 1.15, utils/fsdp_utils.py)."""
    return FIND_FINAL_NORM(model.get_base_model() if hasattr(model, "get_base_model") else model)


def adapts_low_weights(job: Job) -> bool:
    """Adapters are kept in float32 beside frozen weights in bfloat16. No autocast lowers them (precision_arguments), and
    they would be multiplied in float32, at a tenth of the speed."""
    return job.adapter is not None and job.model.dtype == "bfloat16" and job.model.quantization is None


def adapters_policy() -> Any:
    """Gathered and multiplied in bfloat16; their gradients, which are small, are summed in float32 as DDP does."""
    from torch.distributed.fsdp import MixedPrecisionPolicy

    return MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)


def units(job: Job, model: Any) -> list[list[Any]]:
    blocks, size = decoder_blocks(job, model), blocks_per_unit(job)
    return [blocks[i : i + size] for i in range(0, len(blocks), size)]


def blocks_per_unit(job: Job) -> int:
    """A configuration written by hand may not say: one."""
    return int(read_config(job).get("blocks_per_unit", 1))


def raise_trained(model: Any) -> None:
    """As accelerate does before it shards: masters in float32, which the mixed precision's policy casts."""
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype != torch.float32:
            parameter.data = parameter.data.to(torch.float32)


def sharding_options(accelerator: Any) -> dict[str, Any]:
    """Those that accelerate hands to fully_shard (utils/fsdp_utils.py, fsdp2_prepare_model)."""
    from torch.distributed.fsdp import MixedPrecisionPolicy

    plugin, mesh = accelerator.state.fsdp_plugin, getattr(accelerator, "torch_device_mesh", None)
    return {
        "reshard_after_forward": plugin.reshard_after_forward,
        "offload_policy": plugin.cpu_offload,
        "mp_policy": plugin.mixed_precision_policy or MixedPrecisionPolicy(),
        "mesh": None if mesh is None else mesh[tuple(accelerator.parallelism_config.fsdp_dim_names)],
    }
