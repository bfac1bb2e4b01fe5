"""Candidate: one point of the search space. Its fields are those of `plan` in the JSON output."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from axoc.ir.request import Checkpointing, Offload, Strategy


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Invariant: global_batch_size = micro_batch_size x gradient_accumulation_steps x data_parallel."""

    strategy: Strategy
    world_size: int
    data_parallel: int
    tensor_parallel: int
    replicate_degree: int = 1
    """Copies of the model, each sharded over the other data-parallel ranks (hybrid shard); 1 where nothing is sharded."""
    blocks_per_unit: int = 1
    """Under FSDP: blocks that are gathered and reduced together."""
    micro_batch_size: int
    gradient_accumulation_steps: int
    gradient_checkpointing: Checkpointing
    checkpointed_layers: int
    """Layers whose activations are recomputed: 0 for none, all for full."""
    attention: str
    kernels: str
    compile: bool
    packing: bool
    optimizer: str
    offload: Offload
    quantization: str
    dtype: str
    mixed_precision: str
    accelerator: str
    """The inventory's name of the accelerator it runs on."""

    def __post_init__(self) -> None:
        assert self.data_parallel * self.tensor_parallel == self.world_size, self

    @property
    def global_batch_size(self) -> int:
        """Sequences in one optimizer step."""
        return self.micro_batch_size * self.gradient_accumulation_steps * self.data_parallel

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
