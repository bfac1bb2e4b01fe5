"""What must hold inside one plan.json, and between it and the spec, whichever axoc wrote it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from axoc.emit.json_places import JsonPath, dotted, leaf_differences, same, shown
from axoc.facts.accelerators import find_accelerator
from axoc.facts.catalog import find_entry
from axoc.facts.models import lookup_model
from axoc.ir.canonical import digest, to_plain
from axoc.ir.estimate import LedgerItem
from axoc.ir.plan import Plan
from axoc.ir.request import AUTO, PlanRequest
from axoc.review.items import DEVICE_ITEMS
from axoc.review.rebuilt import Given
from axoc.search.scenarios import total_steps

DECIDED: Final = {
    "distributed.gpu_count": "world_size",
    "distributed.type": "strategy",
    "distributed.model_parallel_size": "tensor_parallel",
    "distributed.replicate_degree": "replicate_degree",
    "distributed.offload": "offload",
    "distributed.mixed_precision": "mixed_precision",
    "training.micro_batch_size": "micro_batch_size",
    "training.gradient_accumulation_steps": "gradient_accumulation_steps",
    "training.gradient_checkpointing": "gradient_checkpointing",
    "training.optimizer": "optimizer",
    "model.attention": "attention",
    "model.kernels": "kernels",
    "model.compile": "compile",
    "model.dtype": "dtype",
    "dataset.packing": "packing",
}
"""Fields of the spec, and the key of the plan that holds what was decided."""
Broken = tuple[JsonPath, str]


def broken_invariants(plan: Plan, plan_json: dict[str, Any], inputs: Given) -> Iterator[Broken]:
    """Where in plan.json, and what contradicts what."""
    wanted = digest(inputs.spec_text.encode())
    if plan_json["spec_digest"] != wanted:
        yield ("spec_digest",), f"spec_digest is of another text than spec.yaml, whose digest is {wanted}"
    yield from _decisions(plan, plan_json)
    yield from _as_written(inputs.request, plan_json["plan"])
    yield from _sums(plan)
    yield from _phases(plan)
    yield from _knobs(plan)
    yield from _steps(plan, inputs)
    yield from _catalog(plan)
    first = plan_json["candidates"][0] if plan_json["candidates"] else None
    for key in ("plan", "estimate"):
        if first is not None and first[key] != plan_json[key]:
            yield (key,), f"{key} is not that of candidates[0], and the first candidate is the plan"


def _decisions(plan: Plan, plan_json: dict[str, Any]) -> Iterator[Broken]:
    chosen = plan.chosen.candidate
    for index, decision in enumerate(plan_json["decisions"]):
        field, value = decision["field"], decision["value"]
        if field == "training.global_batch_size":
            planned: Any = chosen.global_batch_size
        elif field in DECIDED:
            planned = getattr(chosen, DECIDED[field])
        else:
            continue
        if not same(value, planned):
            yield (
                ("decisions", index, "value"),
                f"the decision on {field} is {shown(value)}, and plan gives {shown(planned)}",
            )


def _as_written(request: PlanRequest, plan: dict[str, Any]) -> Iterator[Broken]:
    """What the user set is kept."""
    values = to_plain(request)
    for field, key in DECIDED.items():
        part, name = field.split(".")
        value = values["datasets"][0][name] if part == "dataset" else values[part][name]
        alone = field == "distributed.type" and plan["strategy"] == "single"
        if field in request.explicit and value not in (AUTO, None) and not alone and not same(value, plan.get(key)):
            yield ("plan", key), f"plan.{key} is {shown(plan.get(key))}, and spec.yaml sets {field}: {shown(value)}"


def _sums(plan: Plan) -> Iterator[Broken]:
    memory = plan.chosen.estimate.memory
    ledgers = (
        ("ledger", memory.ledger, "peak_allocated_bytes"),
        ("host_ledger", memory.host_ledger, "host_bytes"),
        ("disk_ledger", memory.disk_ledger, "disk_bytes"),
    )
    for name, items, total in ledgers:
        sum_bytes = sum(i.bytes for i in items)
        if items and sum_bytes != getattr(memory, total):
            message = (
                f"the items of estimate.memory.{name} add up to {sum_bytes}, and {total} is {getattr(memory, total)}"
            )
            yield ("estimate", "memory", name), message


def _phases(plan: Plan) -> Iterator[Broken]:
    """The two tables of what is live in each phase, and the ledger of the one that has the peak."""
    memory = plan.chosen.estimate.memory
    totals = {i.item: i.bytes for i in memory.phases}
    for index, phase in enumerate(memory.by_phase):
        there, sum_bytes = ("memory_by_phase", "device", index), sum(i.bytes for i in phase.items)
        if sum_bytes != totals.get(phase.phase):
            yield there, f"the items of {phase.phase} add up to {sum_bytes}, and estimate.memory.phases says otherwise"
        elif phase.phase == memory.peak_phase and {i.item: i.bytes for i in phase.items} != _held(memory.ledger):
            yield there, f"the items of {phase.phase}, the peak, are not those of estimate.memory.ledger"
        elif unknown := [i.item for i in phase.items if i.item not in DEVICE_ITEMS]:
            yield there, f"{unknown[0]} is no item of a ledger"


def _knobs(plan: Plan) -> Iterator[Broken]:
    """The margin is counted from the plan's own values."""
    chosen, adapter = plan.chosen.candidate, plan.request.adapter
    planned = {
        "dataset.max_seq_length": plan.request.max_seq_length,
        "training.micro_batch_size": chosen.micro_batch_size,
        "adapter.rank": None if adapter is None else adapter.rank,
        "distributed.gpu_count": chosen.world_size,
    }
    for index, knob in enumerate(plan.margin.knobs if plan.margin is not None else ()):
        if knob.value != planned.get(knob.field):
            message = (
                f"the margin of {knob.field} is counted from {knob.value}, and the plan has {planned.get(knob.field)}"
            )
            yield ("margin", "knobs", index, "value"), message


def _held(ledger: Iterable[LedgerItem]) -> dict[str, int]:
    return {i.item: i.bytes for i in ledger}


def _steps(plan: Plan, inputs: Given) -> Iterator[Broken]:
    steps = total_steps(plan.request, inputs.data, plan.chosen.candidate.global_batch_size)
    if steps != plan.schedule.total_steps:
        message = (
            f"estimate.total_steps is {plan.schedule.total_steps}, and spec.yaml with spec.lock's rows gives {steps}"
        )
        yield ("estimate", "total_steps"), message


def _catalog(plan: Plan) -> Iterator[Broken]:
    """Facts against the catalogs, where they were taken from them."""
    entry = find_accelerator(plan.cluster.accelerator.name)
    is_cpu = plan.cluster.accelerator.vendor == "cpu"  # shared among its processes: no figure is the catalog's
    if entry is not None and not is_cpu and plan.cluster.accelerator.sources == entry.facts.sources:
        yield from _facts(("facts", "cluster", "accelerator"), plan.cluster.accelerator, entry.facts)
    if plan.request.model.config is None and find_entry(plan.request.model.id or "") is not None:
        known, _ = lookup_model(plan.request.model.id, None, None, plan.request.model.type)
        if known.source == plan.model.source:
            yield from _facts(("facts", "model"), plan.model, known)


def _facts(place: JsonPath, found: Any, known: Any) -> Iterator[Broken]:
    for path, value, wanted in leaf_differences(to_plain(found), to_plain(known), place):
        yield path, f"{dotted(path)} is {shown(value)}, and the catalog has {shown(wanted)}"
