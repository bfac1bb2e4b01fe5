"""The space: every combination the request leaves open, as columns."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np

from axoc.cost.columns import OFFLOADS, STRATEGIES, Columns
from axoc.facts.parameters import ParameterCount, count_parameters
from axoc.ir.facts import ClusterFacts, ModelFacts
from axoc.ir.request import AUTO, Checkpointing, Offload, PlanRequest, Strategy
from axoc.search.batch import choices, global_batch


@dataclass(frozen=True, kw_only=True)
class Combination:
    """The part of a candidate that rules look at: all but the batch split and the depth of checkpointing. The way it is run
    is the scenario's variant."""

    strategy: Strategy
    tensor_parallel: int
    data_parallel: int
    replicate_degree: int
    offload: Offload
    checkpointing: Checkpointing
    checkpointed_layers: int
    variant: int = 0
    """Index into the scenario's variants."""

    @property
    def world_size(self) -> int:
        return self.tensor_parallel * self.data_parallel


def strategies(request: PlanRequest, world: int) -> list[Strategy]:
    """``ddp`` on one device is ``single``; with auto, sharding over one rank is only of use with offload."""
    wanted = request.distributed.type
    if wanted == "ddp":
        return ["single"] if world == 1 else ["ddp"]
    if wanted != AUTO:
        return [s for s in STRATEGIES if s == wanted]
    return ["single", "zero2", "zero3"] if world == 1 else ["ddp", "zero1", "zero2", "fsdp", "zero3"]


def tensor_parallels(request: PlanRequest, cluster: ClusterFacts, model: ModelFacts) -> list[int]:
    """The wanted degree, or the powers of two that divide the node, the world and the attention heads."""
    wanted = request.distributed.model_parallel_size
    if wanted != AUTO:
        return [wanted]
    powers = [2**i for i in range(7) if 2**i <= cluster.accelerators_per_node]
    dividing = [p for p in powers if cluster.world_size % p == 0 and model.num_heads % p == 0]
    return [p for p in dividing if p == 1 or (request.adapter is None and model.num_kv_heads % p == 0)]


NODES_A_COPY: Final = (1, 4, 16)
"""That the shards of a copy may lie on, where there are several copies: hops within them grow with their number, and so does
the room that a shard takes on each."""


def replicate_degrees(request: PlanRequest, cluster: ClusterFacts, strategy: Strategy, tensor: int) -> list[int]:
    """The wanted degree; else one, and under FSDP as many as leave a copy's shards on one node, or on a few."""
    wanted = request.distributed.replicate_degree
    if wanted != AUTO:
        return [wanted]
    if strategy != "fsdp" or cluster.nodes == 1 or cluster.accelerators_per_node * cluster.nodes == tensor:
        return [1]
    several = [n for n in NODES_A_COPY if cluster.nodes % n == 0 and n < cluster.nodes]
    shards = [n for n in several if cluster.accelerators_per_node * n > tensor]
    return [1, *(cluster.nodes // n for n in shards)]


def offloads(request: PlanRequest, strategy: Strategy) -> list[Offload]:
    """What a strategy can offload, where the request leaves it open. DDP and a single device have nothing to move."""
    wanted = request.distributed.offload
    if wanted != AUTO:
        return [wanted]
    able: dict[Strategy, list[Offload]] = {
        "zero1": ["none", "optimizer"],
        "zero2": ["none", "optimizer"],
        "fsdp": ["none", "optimizer+parameters"],
        "zero3": ["none", "optimizer", "optimizer+parameters"],
    }
    return able.get(strategy, ["none"])


def checkpointings(request: PlanRequest, model: ModelFacts) -> list[tuple[Checkpointing, int]]:
    """None, full, and selective at each quarter of the depth; or what the threshold leaves, which is one of them."""
    layers, above = model.num_layers, request.training.checkpoint_above_parameters
    if above is not None:
        count = count_parameters(model)
        large = sum(n for n, block in _kinds(count) if block > above)
        return [("none", 0) if large == 0 else ("full", layers) if large == layers else ("selective", large)]
    quarters = sorted({round(layers * q / 4) for q in (1, 2, 3)} - {0, layers})
    every: list[tuple[Checkpointing, int]] = [("none", 0), *(("selective", k) for k in quarters), ("full", layers)]
    wanted = request.training.gradient_checkpointing
    return [e for e in every if wanted in (AUTO, e[0])]


def _kinds(count: ParameterCount) -> list[tuple[int, int]]:
    """(blocks, parameters of each) of both kinds."""
    dense, sparse = count.dense_layers, count.moe_layers
    return [(dense, count.dense_block if dense else 0), (sparse, count.moe_block if sparse else 0)]


def combinations(request: PlanRequest, cluster: ClusterFacts, model: ModelFacts) -> list[Combination]:
    found = []
    for tensor in tensor_parallels(request, cluster, model):
        if cluster.world_size % tensor:
            continue
        for strategy, (mode, layers) in product(
            strategies(request, cluster.world_size), checkpointings(request, model)
        ):
            found += [
                Combination(
                    strategy=strategy,
                    tensor_parallel=tensor,
                    data_parallel=cluster.world_size // tensor,
                    replicate_degree=replicate,
                    offload=offload,
                    checkpointing=mode,
                    checkpointed_layers=layers,
                )
                for replicate in replicate_degrees(request, cluster, strategy, tensor)
                for offload in offloads(request, strategy)
                if cluster.world_size > 1
                or strategy == "single"
                or offload != "none"
                or request.distributed.type != AUTO
            ]
    return found


def shared_global_batch(request: PlanRequest, cluster: ClusterFacts, found: list[Combination], world: int) -> int:
    """Sequences a step of all candidates. ``world``: what all kinds' world sizes divide, so that they train the same."""
    degrees = sorted({c.data_parallel for c in found}) or [cluster.world_size]
    return global_batch(request.training, world, degrees)


def columns(request: PlanRequest, found: list[Combination], total: int) -> tuple[Columns, list[Combination]]:
    """One row a combination and batch split; the second value tells each row's combination."""
    rows = [(c, s) for c in found for s in choices(request.training, total, c.data_parallel)]

    def column(values: list[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.array(values, dtype=np.int64)

    return Columns(
        strategy=column([STRATEGIES.index(c.strategy) for c, _ in rows]),
        data_parallel=column([c.data_parallel for c, _ in rows]),
        tensor_parallel=column([c.tensor_parallel for c, _ in rows]),
        replicate_degree=column([c.replicate_degree for c, _ in rows]),
        micro_batch=column([s.micro for _, s in rows]),
        accumulation=column([s.accumulation for _, s in rows]),
        checkpointed_layers=column([c.checkpointed_layers for c, _ in rows]),
        offload=column([OFFLOADS.index(c.offload) for c, _ in rows]),
        variant=column([c.variant for c, _ in rows]),
    ), [c for c, _ in rows]
