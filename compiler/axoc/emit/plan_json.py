"""The plan as one JSON object: what ``axoc plan --dry-run --format json`` prints and ``plan.json`` holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

from axoc import __version__
from axoc.emit.margin import margin_sentence
from axoc.emit.replan import training_contract
from axoc.ir.canonical import to_plain
from axoc.ir.estimate import Estimate, MemoryEstimate
from axoc.ir.plan import Decision, NoPlan, Plan, Rejection, Scored
from axoc.search.resume import resume_dict

SCHEMA_VERSION: Final = 1
MAX_CANDIDATES: Final = 20
MAX_REJECTIONS: Final = 40


def plan_dict(plan: Plan) -> dict[str, Any]:
    """All of a plan that a reader or a tool needs, in a fixed order of keys."""
    return {
        **_head(plan.spec_digest),
        "plan": plan.chosen.candidate.as_dict(),
        "decisions": [_decision(d) for d in plan.decisions],
        "estimate": estimate_dict(plan.chosen.estimate),
        "prices": prices_dict(plan),
        "memory_by_phase": _by_phase(plan.chosen.estimate.memory),
        "margin": margin_dict(plan),
        "candidates": [_scored(s) for s in plan.candidates[:MAX_CANDIDATES]],
        "candidates_count": plan.candidates_count,
        "objective": plan.objective,
        "pareto": [_point(s, plan) for s in plan.pareto],
        "training_contract": training_contract(plan),
        "resume": resume_dict(plan),
        **_refusals(plan.rejections, plan.rejections_count),
        "warnings": list(plan.warnings),
        "facts": facts_dict(plan),
    }


def facts_dict(plan: Plan) -> dict[str, Any]:
    """Model and hardware as they were looked up, so that a bundle can be checked wherever it lies. Without the profile of
    an inventory of one's own, which is long: its pace stands in job.json."""
    cluster = dict(to_plain(plan.cluster))
    return {"model": to_plain(plan.model), "cluster": {k: v for k, v in cluster.items() if k != "calibration"}}


def no_plan_dict(no_plan: NoPlan) -> dict[str, Any]:
    """The same shape where nothing fits: ``plan`` is null, and ``nearest`` holds the shortfall in bytes."""
    safety = no_plan.request.policy.memory_safety
    return {
        **_head(no_plan.spec_digest),
        "plan": None,
        "nearest": [{**rejection_dict(r), "shortfall_bytes": shortfall_bytes(r, safety)} for r in no_plan.nearest],
        "smallest_change": no_plan.smallest_change,
        "warnings": list(no_plan.warnings),
        **_refusals(no_plan.rejections),
    }


def shortfall_bytes(rejection: Rejection, safety: float = 0.0) -> int | None:
    """Bytes by which what may be used of the device is exceeded; None where it was refused for another reason."""
    if rejection.estimate is None:
        return None
    memory = rejection.estimate.memory
    short = memory.device_used_bytes - int(memory.capacity_bytes * (1 - safety))
    return short if short > 0 else None


def estimate_dict(estimate: Estimate) -> dict[str, Any]:
    """Without the ledgers of every phase, which are long: ``memory_by_phase`` has the chosen plan's."""
    time = estimate.time
    memory = dict(to_plain(estimate.memory))
    return {
        "memory": {k: v for k, v in memory.items() if k not in ("by_phase", "host_by_phase")},
        "step_seconds": time.step_seconds,
        "breakdown": dict(time.breakdown),
        "tokens_per_second": time.tokens_per_second,
        "mfu": time.mfu,
        "padding_share": time.padding_share,
        "row_lengths": time.row_lengths or None,
        "total_steps": time.total_steps,
        "total_seconds": time.total_seconds,
        "cost_usd": time.cost_usd,
        "spot_cost_usd": time.spot_cost_usd,
        "failures_expected": time.failures_expected,
        "run_breakdown": to_plain(time.run_breakdown),
        "error_band": {"memory": estimate.memory_error_band, "time": estimate.time_error_band},
        "memory_error": {"rows": estimate.memory_error_rows, "measured": estimate.memory_error_measured},
    }


def prices_dict(plan: Plan) -> dict[str, Any]:
    """Dollars of one accelerator and hour with the source of each; null where none is known."""
    cluster = plan.cluster
    return {
        "on_demand": {
            "usd_per_accelerator_hour": cluster.price_usd_per_accelerator_hour,
            "source": cluster.price_source,
        },
        "spot": {
            "usd_per_accelerator_hour": cluster.spot_price_usd_per_accelerator_hour,
            "source": cluster.spot_price_source,
        },
    }


def margin_dict(plan: Plan) -> dict[str, Any] | None:
    """Room in bytes, each setting's last value that fits, and the sentence that people read."""
    margin = plan.margin
    if margin is None:
        return None
    first = margin.first_to_break
    plain = dict(to_plain(margin))
    return {"sentence": margin_sentence(plan), "first_to_break": None if first is None else first.field, **plain}


def rejection_dict(rejection: Rejection) -> dict[str, Any]:
    return {
        "plan": rejection.candidate.as_dict(),
        "rule": rejection.rule,
        "reason": rejection.reason,
        "fix": rejection.fix,
        "link": rejection.link,
    }


def most_informative(rejections: Iterable[Rejection], limit: int = MAX_REJECTIONS) -> list[Rejection]:
    """At most ``limit``: the first of each rule and strategy before a second of any."""
    first: dict[tuple[str, str], Rejection] = {}
    rest: list[Rejection] = []
    for rejection in rejections:
        key = (rejection.rule, rejection.candidate.strategy)
        if key in first:
            rest.append(rejection)
        else:
            first[key] = rejection
    return [*first.values(), *rest][:limit]


def counts_by_rule(rejections: Iterable[Rejection]) -> dict[str, int]:
    """How many candidates each rule refused, in the order of the rules' ids."""
    return dict(sorted(Counter(r.rule for r in rejections).items()))


def _head(spec_digest: str) -> dict[str, Any]:
    return {"schema_version": SCHEMA_VERSION, "axoc_version": __version__, "spec_digest": spec_digest}


def _refusals(rejections: tuple[Rejection, ...], count: int | None = None) -> dict[str, Any]:
    return {
        "rejections": [rejection_dict(r) for r in most_informative(rejections)],
        "rejections_count": len(rejections) if count is None else count,
        "rejections_by_rule": counts_by_rule(rejections),
    }


def _decision(decision: Decision) -> dict[str, Any]:
    return {
        "field": decision.field,
        "value": to_plain(decision.value),
        "because": decision.because,
        "source": decision.source,
    }


def _by_phase(memory: MemoryEstimate) -> dict[str, Any]:
    return {"device": to_plain(memory.by_phase), "host": to_plain(memory.host_by_phase)}


def _point(scored: Scored, plan: Plan) -> dict[str, Any]:
    """A candidate that none beats in time, money and device memory at once."""
    time = scored.estimate.time
    return {
        "plan": scored.candidate.as_dict(),
        "step_seconds": time.step_seconds,
        "total_seconds": time.total_seconds,
        "cost_usd": time.cost_usd,
        "device_used_bytes": scored.estimate.memory.device_used_bytes,
        "chosen": scored.candidate == plan.chosen.candidate,
    }


def _scored(scored: Scored) -> dict[str, Any]:
    return {"plan": scored.candidate.as_dict(), "estimate": estimate_dict(scored.estimate)}
