"""FSDP2's configuration as a typed model. Keys as in docs/job.md; transformers reads them after ``fsdp_`` is cut off."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from axoc.cost.sizes import sizes_of
from axoc.ir.plan import Plan


@dataclass(frozen=True, kw_only=True)
class FsdpConfig:
    fsdp_version: int
    """Always written: transformers' default changed from 1 to 2 in 5.10."""
    transformer_layer_cls_to_wrap: tuple[str, ...]
    """The decoder block of this architecture: a wrong name shards nothing (transformers issue 37672)."""
    blocks_per_unit: int
    """Blocks, in order, that the runtime makes one unit of."""
    min_unit_parameters: int
    """That every unit has but the last; 0 where blocks differ, so that it is not known."""
    reshard_after_forward: bool
    state_dict_type: str
    """Sharded: a full state dict needs the whole model on one host, and drops most of a LoRA adapter under FSDP2."""
    cpu_ram_efficient_loading: bool
    offload_params: bool
    cpu_offload: bool
    """The name under which transformers 5 reads ``offload_params``."""
    activation_checkpointing: bool
    """False: the runtime wraps the layers itself, and transformers refuses both at once."""

    def as_dict(self) -> dict[str, Any]:
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}


def fsdp_config(plan: Plan) -> FsdpConfig:
    """The configuration of an ``fsdp`` plan. FSDP2 offloads parameters, gradients and optimizer states together."""
    offload = plan.chosen.candidate.offload != "none"
    return FsdpConfig(
        fsdp_version=2,
        transformer_layer_cls_to_wrap=(plan.model.decoder_block,),
        blocks_per_unit=plan.chosen.candidate.blocks_per_unit,
        min_unit_parameters=_unit_parameters(plan),
        reshard_after_forward=True,
        state_dict_type="SHARDED_STATE_DICT",
        cpu_ram_efficient_loading=False,
        offload_params=offload,
        cpu_offload=offload,
        activation_checkpointing=False,
    )


def _unit_parameters(plan: Plan) -> int:
    sizes = sizes_of(plan.model, plan.request.adapter)
    alike = sizes.block * plan.model.num_layers == sizes.blocks and plan.model.family != "generic"
    return sizes.block * plan.chosen.candidate.blocks_per_unit if alike else 0
