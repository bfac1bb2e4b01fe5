"""The smallest change of the spec that would fit, found by trying: each change is planned like any request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from axoc.errors import UserError
from axoc.ir.request import AUTO, AdapterRequest, PlanRequest, QuantizationRequest
from axoc.search.choose import Facts, all_passes
from axoc.search.scenarios import sized_cluster

MORE_DEVICES: Final = (2, 4, 8, 16)


def smallest_change(request: PlanRequest, facts: Facts) -> str | None:
    """The first change, in order of how little it alters the training, under which some candidate fits."""
    for text, changed, changed_facts in _changes(request, facts):
        if _fits(changed, changed_facts):
            return text
    return None


def _fits(request: PlanRequest, facts: Facts) -> bool:
    try:
        return any(p.fits().any() for p in all_passes(request, facts))
    except UserError:
        return False


def _changes(request: PlanRequest, facts: Facts) -> Iterator[tuple[str, PlanRequest, Facts]]:
    """From changes that leave the result alone to those that train something else."""
    for text, changed in (*_placement(request), *_batch(request, facts), *_half(request), *_numerics(request)):
        yield text, changed, facts
    yield from _more_devices(request, facts)
    for text, changed in _other_training(request):
        yield text, changed, facts


def _placement(request: PlanRequest) -> Iterator[tuple[str, PlanRequest]]:
    d, t = request.distributed, request.training
    if t.gradient_checkpointing not in (AUTO, "full"):
        yield (
            "set training.gradient_checkpointing: auto",
            replace(request, training=replace(t, gradient_checkpointing=AUTO)),
        )
    if t.micro_batch_size not in (AUTO, 1):
        free = replace(t, micro_batch_size=AUTO, gradient_accumulation_steps=AUTO)
        yield "leave training.micro_batch_size and gradient_accumulation_steps auto", replace(request, training=free)
    if d.type != AUTO:
        yield "set distributed.type: auto", replace(request, distributed=replace(d, type=AUTO))
    if d.offload != AUTO:
        yield "set distributed.offload: auto", replace(request, distributed=replace(d, offload=AUTO))
    if d.model_parallel_size not in (AUTO, 1):
        yield "set distributed.model_parallel_size: 1", replace(request, distributed=replace(d, model_parallel_size=1))
        both = replace(d, model_parallel_size=1, type=AUTO, offload=AUTO)
        yield (
            "set distributed.model_parallel_size: 1, type: auto and offload: auto",
            replace(request, distributed=both),
        )


def _batch(request: PlanRequest, facts: Facts) -> Iterator[tuple[str, PlanRequest]]:
    """Sizes that do not divide: the next number of sequences that all ranks share evenly, and sizes that follow from it."""
    t = request.training
    if t.global_batch_size == AUTO:
        return
    free = replace(t, micro_batch_size=AUTO, gradient_accumulation_steps=AUTO)
    ranks = [c.world_size for c in (sized_cluster(request, c) for c in facts.clusters) if c is not None]
    for total in dict.fromkeys(-(-int(t.global_batch_size) // n) * n for n in ranks):
        changed = replace(free, global_batch_size=total)
        if changed != t:
            left = "" if replace(t, global_batch_size=total) == changed else " and leave its other sizes auto"
            yield f"set training.global_batch_size: {total}{left}", replace(request, training=changed)


def _half(request: PlanRequest) -> Iterator[tuple[str, PlanRequest]]:
    """For accelerators without bfloat16: float16, in which what is trained needs float32 beside it."""
    if request.distributed.mixed_precision != "bf16":
        return
    distributed = replace(request.distributed, mixed_precision="fp16")
    for dtype in ("float32",) if request.adapter is None else ("float32", "float16"):
        changed = replace(request, model=replace(request.model, dtype=dtype), distributed=distributed)
        yield f"set model.dtype: {dtype} and distributed.mixed_precision: fp16", changed


def _numerics(request: PlanRequest) -> Iterator[tuple[str, PlanRequest]]:
    if request.model.kernels == "none":
        yield "set model.kernels: auto", replace(request, model=replace(request.model, kernels=AUTO))
    if request.model.dtype == "float32":
        yield "set model.dtype: bfloat16", replace(request, model=replace(request.model, dtype="bfloat16"))
    if request.training.optimizer not in ("adamw_bnb_8bit", AUTO):
        changed = replace(request.training, optimizer="adamw_bnb_8bit")
        yield "set training.optimizer: adamw_bnb_8bit (or auto)", replace(request, training=changed)


def _more_devices(request: PlanRequest, facts: Facts) -> Iterator[tuple[str, PlanRequest, Facts]]:
    first = facts.clusters[0]
    freed = replace(request, distributed=replace(request.distributed, gpu_count=None))
    for times in MORE_DEVICES:
        if first.accelerators_per_node * times <= 8 and first.nodes == 1:
            bigger = replace(first, accelerators_per_node=first.accelerators_per_node * times)
        else:
            bigger = replace(first, nodes=first.nodes * times)
        text = f"use {bigger.world_size} of {first.accelerator.name} instead of {first.world_size} (--inventory {bigger.label})"
        yield text, freed, replace(facts, clusters=(bigger,))


def _other_training(request: PlanRequest) -> Iterator[tuple[str, PlanRequest]]:
    longest = request.max_seq_length
    for share in (2, 4):
        shorter = tuple(replace(d, max_seq_length=min(d.max_seq_length, longest // share)) for d in request.datasets)
        yield f"set dataset.max_seq_length: {longest // share}", replace(request, datasets=shorter)
    adapter = AdapterRequest(type="lora", rank=16, alpha=32.0, dropout=0.0, targets="all-linear")
    if request.adapter is None:
        yield "train an adapter: adapter: {type: lora}", replace(request, adapter=adapter)
    model = replace(request.model, quantization=QuantizationRequest(method="nf4"))
    quantized = replace(request, adapter=request.adapter or adapter, model=model)
    yield "train an adapter over a quantized base: adapter: {type: lora} and model.quantization: nf4", quantized
