"""Scenarios: one search pass for each kind of accelerator and each quantization left open."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from axoc.cost.objectives import objective_of
from axoc.cost.scenario import Scenario
from axoc.cost.sizes import sizes_for, trainable_for
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
    optimizer: str,
    steps: int | None,
    data: Sequence[DataFacts] = (),
) -> Scenario:
    wanted = request.model.quantization
    objective = objective_of(request.training)
    double = wanted.double_quantization if isinstance(wanted, QuantizationRequest) else True
    least = request.distributed.min_unit_parameters
    return Scenario(
        min_unit_parameters=None if least == AUTO else least,
        model=model,
        sizes=sizes_for(objective, model, request.adapter),
        cluster=cluster,
        seq_length=request.max_seq_length,
        dtype=request.model.dtype,
        mixed_precision=request.distributed.mixed_precision,
        adapter=request.adapter,
        trainable=trainable_for(objective, model, request.adapter),
        quantization=quantization,
        double_quantization=double,
        optimizer=optimizer,
        attention=resolved.attention,
        kernels=resolved.kernels,
        compile=resolved.compile,
        packing=resolved.packing,
        evaluates=any(d.validation_split > 0 for d in request.datasets),
        steps=steps,
        data_rows=_known_sum([d.rows for d in data]),
        data_bytes=_known_sum([d.bytes for d in data]),
        saves=_saves(request, steps),
        held_out_rows=_held_out_rows(request, data),
        evaluations=_evaluations(request, steps),
        downloads=request.model.looks_remote,
        exports=request.export.formats,
        uploads=request.upload_to is not None,
        objective=objective,
    )


def _known_sum(values: Sequence[int | None]) -> int | None:
    known = [v for v in values if v is not None]
    return sum(known) if values and len(known) == len(values) else None


def _saves(request: PlanRequest, steps: int | None) -> int | None:
    """Checkpoints of a run: as set, four where left open, one an epoch where the length is not known. None: not known."""
    training = request.training
    if steps is not None:
        return math.ceil(steps / (save_every(request, steps) or steps))
    if training.save_steps == AUTO and training.epochs is not None:
        return math.ceil(training.epochs)
    return None


def save_every(request: PlanRequest, steps: int | None) -> int | None:
    """Steps between checkpoints: as set, else a quarter of a run of known length, else None for each epoch's end."""
    wanted = request.training.save_steps
    if wanted != AUTO:
        return int(wanted)
    return None if steps is None else max(1, steps // 4)


def _held_out_rows(request: PlanRequest, data: Sequence[DataFacts]) -> int | None:
    """Rows of all datasets that training does not see; None where one dataset's rows are not known."""
    if len(data) != len(request.datasets) or any(d.rows is None for d in data):
        return None
    pairs = zip(data, request.datasets, strict=True)
    return sum((d.rows or 0) - math.floor((d.rows or 0) * (1 - wanted.validation_split)) for d, wanted in pairs)


def _evaluations(request: PlanRequest, steps: int | None) -> int:
    """Before and after training, and as often within it as the schedule says: eval_steps left open follow the checkpoints."""
    if not any(d.validation_split > 0 for d in request.datasets):
        return 0
    wanted = request.training.eval_steps
    every = save_every(request, steps) if wanted == AUTO else int(wanted)
    within = math.floor(request.training.epochs or 0) if every is None or steps is None else steps // every
    return within + 2


def capacity_bytes(request: PlanRequest, cluster: ClusterFacts) -> int:
    """Device bytes a plan may use: the budget, but never more than the device has."""
    device = cluster.accelerator.memory_bytes
    if cluster.accelerator.vendor == "cpu":
        device = cluster.host_memory_bytes // cluster.accelerators_per_node
    budget = request.distributed.memory_budget_per_gpu_bytes
    return device if budget is None else min(device, budget)
