"""Scenarios: one search pass for each kind of accelerator and each quantization left open."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from axoc.cost.lengths import of_mean, rows_per_sequence
from axoc.cost.objectives import objective_of
from axoc.cost.scenario import DTYPE_BYTES, Scenario
from axoc.cost.sizes import sizes_for, trainable_for
from axoc.facts.exports import asked
from axoc.ir.facts import ClusterFacts, DataFacts, ModelFacts, RowLengths
from axoc.ir.request import AUTO, DatasetRequest, PlanRequest, QuantizationRequest
from axoc.search.adapter_inputs import between_the_casts, scales_between
from axoc.search.ways import Way

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


def total_steps(
    request: PlanRequest, data: Sequence[DataFacts], global_batch: int, rows_each: float = 1.0
) -> int | None:
    """Optimizer steps of the run, where the rows are known or the user set them. ``rows_each``: of the data, in a sequence of
    the batch."""
    training = request.training
    if training.max_steps is not None:
        return training.max_steps
    if training.epochs is None or any(d.rows is None for d in data) or not data:
        return None
    kept = [(1 - d.validation_split) * d.weight for d in request.datasets]
    rows = sum(math.floor((d.rows or 0) * share) for d, share in zip(data, kept, strict=True))
    return max(1, math.ceil(math.ceil(rows / rows_each / global_batch) * training.epochs))


def row_lengths(request: PlanRequest, data: Sequence[DataFacts]) -> RowLengths | None:
    """Of the rows of all datasets together, each by its rows where all are known, else by its weight. None where one
    dataset's are not known."""
    known = [*data, *([DataFacts(path=None)] * (len(request.datasets) - len(data)))]
    found = [_lengths(wanted, facts) for wanted, facts in zip(request.datasets, known, strict=True)]
    if any(one is None for one in found):
        return None
    rows = [d.rows for d in known]
    counts = [1.0 if None in rows else float(n or 0) for n in rows]
    whole = sum(n * d.weight for n, d in zip(counts, request.datasets, strict=True)) or 1.0
    points = sorted(
        (tokens, share * count * wanted.weight / whole)
        for one, count, wanted in zip(found, counts, request.datasets, strict=True)
        if one is not None
        for tokens, share in zip(one.tokens, one.shares, strict=True)
    )
    source = "; ".join(dict.fromkeys(one.source for one in found if one is not None))
    return RowLengths(tokens=tuple(n for n, _ in points), shares=tuple(s for _, s in points), source=source)


def _lengths(wanted: DatasetRequest, facts: DataFacts) -> RowLengths | None:
    if wanted.mean_tokens is None:
        return facts.lengths
    source = f"dataset.mean_tokens {wanted.mean_tokens:g}, spread exponentially"
    return of_mean(float(wanted.mean_tokens), wanted.max_seq_length, source)


def scenario_of(
    request: PlanRequest,
    model: ModelFacts,
    cluster: ClusterFacts,
    ways: Sequence[Way],
    quantization: str,
    optimizer: str,
    global_batch: int,
    data: Sequence[DataFacts] = (),
) -> Scenario:
    """With a variant for each of the ways. ``global_batch``: sequences a step."""
    base = _plain(request, model, cluster, ways[0], quantization, optimizer, data)
    found = []
    for way in ways:
        one = replace(base, attention=way.attention, kernels=way.kernels, compile=way.compile, packing=way.packing)
        steps = total_steps(request, data, global_batch, rows_per_sequence(one))
        counted = {"saves": _saves(request, steps), "evaluations": _evaluations(request, steps)}
        found.append(replace(one, steps=steps, **counted))  # type: ignore[arg-type]
    return replace(found[0], variants=tuple(found))


def _plain(
    request: PlanRequest,
    model: ModelFacts,
    cluster: ClusterFacts,
    way: Way,
    quantization: str,
    optimizer: str,
    data: Sequence[DataFacts],
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
        casts_inputs=between_the_casts(request.adapter, cluster) is not None,
        counts_operations=False,
        scales_between=scales_between(request.adapter, quantization),
        rounds_stochastically=request.training.bf16_update == "stochastic",
        attention=way.attention,
        kernels=way.kernels,
        compile=way.compile,
        packing=way.packing,
        evaluates=any(d.validation_split > 0 for d in request.datasets),
        steps=None,
        streaming=any(d.streaming for d in request.datasets),
        data_rows=_known_sum([d.rows for d in data]),
        data_bytes=_known_sum([d.bytes for d in data]),
        held_out_rows=_held_out_rows(request, data),
        sampled_rows=request.training.eval_rows,
        lengths=row_lengths(request, data),
        downloads=request.model.looks_remote,
        save_steps=None if request.training.save_steps == AUTO else int(request.training.save_steps),
        saves_by_failures=request.training.early_stopping_patience is None,
        exports=tuple(
            (a.written, a.bytes_a_parameter(DTYPE_BYTES[request.model.dtype]))
            for a in asked(request.export.formats, request.export.quantization)
        ),
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
