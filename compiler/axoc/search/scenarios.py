"""Scenarios: one search pass for each kind of accelerator and each quantization left open."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from axoc.cost.scenario import Scenario
from axoc.cost.sizes import sizes_of, trainable_parameters
from axoc.ir.facts import ClusterFacts, DataFacts, ModelFacts
from axoc.ir.request import AUTO, PlanRequest, QuantizationRequest
from axoc.search.resolve import Resolved

MASTER_DTYPES = {"float16": "float32"}


def sized_cluster(request: PlanRequest, cluster: ClusterFacts) -> ClusterFacts | None:
    """The part of the inventory the request uses; None where the inventory has fewer devices or they do not fill nodes."""
    wanted = request.distributed.gpu_count
    if wanted is None or wanted == cluster.world_size:
        return cluster
    if wanted > cluster.world_size:
        return None
    if wanted <= cluster.accelerators_per_node:
        return replace(cluster, accelerators_per_node=wanted, nodes=1)
    if wanted % cluster.accelerators_per_node:
        return None
    return replace(cluster, nodes=wanted // cluster.accelerators_per_node)


def total_steps(request: PlanRequest, data: tuple[DataFacts, ...], global_batch: int) -> int | None:
    """Optimizer steps of the run, where the rows are known or the user set them."""
    training = request.training
    if training.max_steps is not None:
        return training.max_steps
    if training.epochs is None or any(d.rows is None for d in data) or not data:
        return None
    kept = [(1 - d.validation_split) * d.weight for d in request.datasets]
    rows = sum(math.floor((d.rows or 0) * share) for d, share in zip(data, kept, strict=True))
    return max(1, math.ceil(math.ceil(rows / global_batch) * training.epochs))


def scenario_of(
    request: PlanRequest,
    model: ModelFacts,
    cluster: ClusterFacts,
    resolved: Resolved,
    quantization: str,
    steps: int | None,
    data: Sequence[DataFacts] = (),
) -> Scenario:
    wanted = request.model.quantization
    double = wanted.double_quantization if isinstance(wanted, QuantizationRequest) else True
    return Scenario(
        model=model,
        sizes=sizes_of(model, request.adapter),
        cluster=cluster,
        seq_length=request.max_seq_length,
        dtype=request.model.dtype,
        mixed_precision=request.distributed.mixed_precision,
        adapter=request.adapter,
        trainable=trainable_parameters(model, request.adapter),
        quantization=quantization,
        double_quantization=double,
        optimizer=request.training.optimizer,
        attention=resolved.attention,
        kernels=resolved.kernels,
        compile=resolved.compile,
        packing=resolved.packing,
        evaluates=any(d.validation_split > 0 for d in request.datasets),
        steps=steps,
        data_rows=_known_sum([d.rows for d in data]),
        data_bytes=_known_sum([d.bytes for d in data]),
        saves=_saves(request, steps),
        downloads=request.model.looks_remote,
        exports=request.export.formats,
    )


def _known_sum(values: Sequence[int | None]) -> int | None:
    known = [v for v in values if v is not None]
    return sum(known) if values and len(known) == len(values) else None


def _saves(request: PlanRequest, steps: int | None) -> int | None:
    """Checkpoints of a run: as set, four where left open, one an epoch where the length is not known. None: not known."""
    training = request.training
    if steps is not None:
        every = max(1, steps // 4) if training.save_steps == AUTO else training.save_steps
        return math.ceil(steps / every)
    if training.save_steps == AUTO and training.epochs is not None:
        return math.ceil(training.epochs)
    return None


def capacity_bytes(request: PlanRequest, cluster: ClusterFacts) -> int:
    """Device bytes a plan may use: the budget, but never more than the device has."""
    device = cluster.accelerator.memory_bytes
    if cluster.accelerator.vendor == "cpu":
        device = cluster.host_memory_bytes // cluster.accelerators_per_node
    budget = request.distributed.memory_budget_per_gpu_bytes
    return device if budget is None else min(device, budget)
