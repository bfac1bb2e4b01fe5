"""The plan of a written bundle, put together from its plan.json, spec.yaml and spec.lock: nothing is searched or looked up.

From it every file of the bundle can be emitted again, so that any two files that do not belong together are found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from axoc.cost.objectives import objective_of
from axoc.cost.sizes import sizes_for, trainable_for
from axoc.facts.lock import parse_lock
from axoc.inputs import read_bytes
from axoc.ir.candidate import Candidate
from axoc.ir.estimate import Estimate, MemoryEstimate, TimeEstimate
from axoc.ir.facts import ClusterFacts, DataFacts, ModelFacts
from axoc.ir.margin import Margin
from axoc.ir.plan import Decision, Plan, Rejection, Schedule, Scored
from axoc.ir.request import PlanRequest
from axoc.spec.load import load_spec

_CANDIDATE: Final = TypeAdapter(Candidate)
_MEMORY: Final = TypeAdapter(MemoryEstimate)
_TIME: Final = TypeAdapter(TimeEstimate)
_MODEL: Final = TypeAdapter(ModelFacts)
_CLUSTER: Final = TypeAdapter(ClusterFacts)
_MARGIN: Final = TypeAdapter(Margin)
PlanJson = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a bundle holds of its inputs."""

    request: PlanRequest
    spec_text: str
    data: tuple[DataFacts, ...]


def given(folder: Path, name: str) -> Given:
    """``name``: of the run, where the spec names none: then it was the spec's file name. Raises UserError."""
    spec, lock = folder / "spec.yaml", folder / "spec.lock"
    content = read_bytes(spec, "the spec")
    request = load_spec(content, str(spec))
    request = request if "name" in request.explicit else replace(request, name=name)
    known = {d.path: d for d in parse_lock(read_bytes(lock, "the lock").decode("utf-8", "replace"), str(lock))}
    data = tuple(known.get(d.path, DataFacts(path=d.path)) for d in request.datasets)
    return Given(request=request, spec_text=content.decode("utf-8-sig"), data=data)


def rebuilt(plan: PlanJson, inputs: Given) -> Plan:
    """Raises ValueError (pydantic's) or KeyError where plan.json lacks what a plan has."""
    request, chosen = inputs.request, _CANDIDATE.validate_python(plan["plan"])
    by_phase = plan["memory_by_phase"]
    objective, contract = objective_of(request.training), plan["training_contract"]
    model = _MODEL.validate_python(plan["facts"]["model"])
    candidates = tuple(_scored(c) for c in plan["candidates"])
    return Plan(
        request=request,
        spec_digest=plan["spec_digest"],
        model=model,
        cluster=_CLUSTER.validate_python(plan["facts"]["cluster"]),
        data=inputs.data,
        chosen=Scored(candidate=chosen, estimate=_estimate(plan["estimate"], by_phase)),
        schedule=Schedule(
            total_steps=plan["estimate"]["total_steps"],
            eval_steps=contract["eval_steps"],
            save_steps=contract["save_steps"],
            parameters=sizes_for(objective, model, request.adapter).total,
            trainable_parameters=trainable_for(objective, model, request.adapter),
        ),
        decisions=tuple(Decision(**{f.name: d[f.name] for f in fields(Decision)}) for d in plan["decisions"]),
        candidates=candidates,
        rejections=tuple(_rejection(r) for r in plan["rejections"]),
        warnings=tuple(plan["warnings"]),
        fitting=plan["candidates_count"],
        refused=plan["rejections_count"],
        objective=plan["objective"],
        pareto=tuple(_point(p, candidates) for p in plan["pareto"]),
        margin=None if plan["margin"] is None else _MARGIN.validate_python(plan["margin"]),
    )


def _scored(scored: Mapping[str, Any]) -> Scored:
    return Scored(candidate=_CANDIDATE.validate_python(scored["plan"]), estimate=_estimate(scored["estimate"]))


def _estimate(estimate: Mapping[str, Any], by_phase: Mapping[str, Any] | None = None) -> Estimate:
    ledgers = {} if by_phase is None else {"by_phase": by_phase["device"], "host_by_phase": by_phase["host"]}
    time = {f.name: estimate[f.name] for f in fields(TimeEstimate) if f.name in estimate and _is_written(f, estimate)}
    return Estimate(
        memory=_MEMORY.validate_python(estimate["memory"] | ledgers),
        time=_TIME.validate_python(time | {"breakdown": tuple(estimate["breakdown"].items())}),
        memory_error_band=estimate["error_band"]["memory"],
        time_error_band=estimate["error_band"]["time"],
        memory_error_rows=estimate["memory_error"]["rows"],
        memory_error_measured=estimate["memory_error"]["measured"],
    )


def _is_written(field: Field[Any], estimate: Mapping[str, Any]) -> bool:
    """False where the default stands: plan.json lacks it, or has null for an empty text."""
    if field.name == "breakdown":
        return False
    return field.default is MISSING or estimate.get(field.name, field.default) is not None


def _rejection(rejection: Mapping[str, Any]) -> Rejection:
    named = {f: rejection[f] for f in ("rule", "reason", "fix", "link")}
    return Rejection(candidate=_CANDIDATE.validate_python(rejection["plan"]), **named)


def _point(point: Mapping[str, Any], candidates: tuple[Scored, ...]) -> Scored:
    """A point of the Pareto front, of which plan.json holds no more than the documents show."""
    candidate = _CANDIDATE.validate_python(point["plan"])
    like = candidates[0].estimate
    used = point["device_used_bytes"]
    timed = {k: point[k] for k in ("step_seconds", "total_seconds", "cost_usd")}
    estimate = replace(like, memory=replace(like.memory, device_used_bytes=used), time=replace(like.time, **timed))
    return Scored(candidate=candidate, estimate=estimate)
