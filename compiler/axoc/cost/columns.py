"""Columns: the part of the search space that varies within one scenario, as parallel NumPy arrays."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from axoc.ir.request import Offload, Strategy

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

STRATEGIES: Final[tuple[Strategy, ...]] = ("single", "ddp", "zero1", "zero2", "fsdp", "zero3")
"""In order of preference where two cost the same: the simplest first."""
OFFLOADS: Final[tuple[Offload, ...]] = ("none", "optimizer", "optimizer+parameters")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """One row a candidate. All arrays have the same length."""

    strategy: Ints
    """Index into STRATEGIES."""
    data_parallel: Ints
    tensor_parallel: Ints
    replicate_degree: Ints
    """Copies of the model, each sharded over the other data-parallel ranks; 1 where there is one copy, or none sharded."""
    micro_batch: Ints
    accumulation: Ints
    checkpointed_layers: Ints
    offload: Ints
    """Index into OFFLOADS."""
    variant: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """Index into the scenario's variants; left out, all are the first."""

    def __post_init__(self) -> None:
        if len(self.variant) != len(self.strategy):
            object.__setattr__(self, "variant", np.zeros(len(self.strategy), dtype=np.int64))

    def __len__(self) -> int:
        return len(self.strategy)

    def rows(self, chosen: Bools | Ints) -> Columns:
        """Some of the candidates."""
        return Columns(**{f.name: getattr(self, f.name)[chosen] for f in fields(self)})

    def of_one_variant(self) -> Columns:
        """The same, to be costed with the scenario of their variant alone."""
        return replace(self, variant=np.zeros(len(self), dtype=np.int64))

    def uses(self, *names: Strategy) -> Bools:
        """True where the strategy is one of ``names``."""
        return np.array([name in names for name in STRATEGIES])[self.strategy]

    @property
    def world(self) -> Ints:
        return self.data_parallel * self.tensor_parallel

    @property
    def deepspeed(self) -> Bools:
        return self.uses("zero1", "zero2", "zero3")

    @property
    def shard_degree(self) -> Ints:
        """Data-parallel ranks that share one copy, of whatever the strategy shards."""
        return self.data_parallel // self.replicate_degree

    @property
    def weight_shards(self) -> Ints:
        """Data-parallel ranks that share one copy of the weights."""
        return cast(Ints, np.where(self.uses("fsdp", "zero3"), self.shard_degree, 1))

    @property
    def gradient_shards(self) -> Ints:
        return cast(Ints, np.where(self.uses("fsdp", "zero2", "zero3"), self.shard_degree, 1))

    @property
    def optimizer_shards(self) -> Ints:
        return cast(Ints, np.where(self.uses("fsdp", "zero1", "zero2", "zero3"), self.shard_degree, 1))

    @property
    def offloads_optimizer(self) -> Bools:
        return self.offload >= 1

    @property
    def offloads_parameters(self) -> Bools:
        return self.offload >= 2
