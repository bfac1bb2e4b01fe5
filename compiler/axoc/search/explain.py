"""Explanations: for every value of the plan where it comes from, and for what was searched, what the next best costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from axoc.cost.units import LATENCY_SHARE, min_unit_parameters
from axoc.facts.float8 import float8_linears
from axoc.ir.candidate import Candidate
from axoc.ir.estimate import Estimate
from axoc.ir.plan import Decision, Schedule
from axoc.ir.request import AUTO, PlanRequest
from axoc.search.batch import DEFAULT_GLOBAL_BATCH
from axoc.search.objective import Objective
from axoc.search.passes import Pass
from axoc.search.space import Combination
from axoc.search.ways import user_decision
from axoc.units import duration, gib

Rows = list[tuple[Candidate, Callable[[], Estimate]]]
"""Candidates that fit, the chosen one first; estimates are made of the few that a reason names."""

SEARCHED: Final = {
    "distributed.type": "strategy",
    "distributed.model_parallel_size": "tensor_parallel",
    "distributed.replicate_degree": "replicate_degree",
    "distributed.offload": "offload",
    "training.gradient_checkpointing": "gradient_checkpointing",
    "training.micro_batch_size": "micro_batch_size",
    "training.gradient_accumulation_steps": "gradient_accumulation_steps",
    "training.optimizer": "optimizer",
    "dataset.packing": "packing",
    "model.attention": "attention",
    "model.kernels": "kernels",
    "model.compile": "compile",
}
PADDING_TOLD: Final = 0.01
"""Of the tokens computed: plans that differ by less compute the same for the same batch."""


def decisions(request: PlanRequest, fixed: Sequence[Decision], rows: Rows, best: Pass) -> tuple[Decision, ...]:
    """``fixed``: of what was decided before the search."""
    before = {d.field for d in fixed}
    searched = [_searched(request, field, name, rows, best) for field, name in SEARCHED.items() if field not in before]
    given = [user_decision(request, "model.dtype", request.model.dtype), _precision(request, best)]
    sizes = [_world(request, rows), _global_batch(request, rows[0][0])]
    return (
        *sizes,
        *searched,
        *fixed,
        _quantization(request, rows[0][0], best),
        *given,
    )


def _precision(request: PlanRequest, best: Pass) -> Decision:
    """Never chosen: what float8 does to a loss is the user's to judge."""
    made = user_decision(request, "distributed.mixed_precision", request.distributed.mixed_precision)
    if made.value != "fp8":
        return made
    model = best.costed.scenario.model
    rest = ", routers and experts" if model.moe is not None else ""
    because = (
        f"{made.because}: products of the blocks' {float8_linears(model):,} linear layers, forward in e4m3 and gradients in e5m2; "
        f"in bf16 stay attention, head, embedding, norms{rest}"
    )
    return replace(made, because=because)


def schedule_decisions(request: PlanRequest, schedule: Schedule, saving: str | None) -> tuple[Decision, ...]:
    """When the run evaluates and saves, and why then. ``saving``: why more often than usual, where it is."""
    known = schedule.total_steps is not None
    evaluates = any(d.validation_split > 0 for d in request.datasets)
    because = "four times in a run of known length" if known else "at each epoch's end: the run's length is not known"
    found = []
    for field, value in (("training.eval_steps", schedule.eval_steps), ("training.save_steps", schedule.save_steps)):
        if field.endswith("eval_steps") and not evaluates:
            reason = "no rows are held out, so there is nothing to evaluate on"
            found.append(Decision(field=field, value=value, because=reason, source="rule:schedule"))
        elif _wanted(request, field) != AUTO:
            found.append(user_decision(request, field, value))
        elif field.endswith("save_steps") and follows_evaluation(request):
            reason = "a multiple of eval_steps: early stopping goes back to the best evaluation, which must be saved"
            found.append(Decision(field=field, value=value, because=reason, source="rule:early-stopping-saves"))
        elif field.endswith("save_steps") and saving is not None:
            found.append(Decision(field=field, value=value, because=saving, source="rule:young-daly"))
        else:
            found.append(Decision(field=field, value=value, because=because, source="rule:schedule"))
    return tuple(found)


def unit_decisions(request: PlanRequest, best: Pass, row: int) -> tuple[Decision, ...]:
    """FSDP's units: how many blocks are gathered together, and why so many."""
    chosen, scenario = best.candidate(row), best.costed.scenario
    field = "distributed.min_unit_parameters"
    if chosen.strategy != "fsdp":
        return ()
    blocks, layers = chosen.blocks_per_unit, scenario.model.num_layers
    least = int(min_unit_parameters(scenario, best.costed.columns.rows(np.array([row])))[0])
    units = f"{math.ceil(layers / blocks)} units of {blocks} block{'s' if blocks > 1 else ''}"
    size = f"{scenario.sizes.blocks / layers * blocks / 1e6:,.1f}M parameters each"
    if _wanted(request, field) != AUTO:
        return (Decision(field=field, value=least, because=f"set in the spec: {units}, {size}", source="user"),)
    because = f"{units}, {size}: with fewer, a collective's latency is over {LATENCY_SHARE:.0%} of its transfer"
    return (Decision(field=field, value=least, because=because, source="rule:units-by-parameters"),)


def threshold_decisions(request: PlanRequest, chosen: Candidate, layers: int) -> tuple[Decision, ...]:
    """What the blocks' sizes decide, where the spec sets a threshold."""
    field, above = "training.checkpoint_above_parameters", request.training.checkpoint_above_parameters
    if above is None:
        return ()
    because = f"set in the spec: {chosen.checkpointed_layers} of {layers} blocks have more parameters, and recompute"
    return (Decision(field=field, value=above, because=because, source="user"),)


def objective_decision(request: PlanRequest, wanted: Objective) -> Decision:
    field, dollars = "policy.objective", wanted.usd_per_hour
    value: Any = {"usd_per_hour": dollars} if dollars is not None else wanted.kind
    if request.policy.objective != AUTO:
        return user_decision(request, field, value)
    return Decision(field=field, value=value, because=wanted.why, source="default")


def follows_evaluation(request: PlanRequest) -> bool:
    """Early stopping with evaluations that are set and checkpoints that are not: transformers refuses others."""
    training = request.training
    if training.early_stopping_patience is None or not any(d.validation_split > 0 for d in request.datasets):
        return False
    return training.eval_steps != AUTO and training.save_steps == AUTO


def _wanted(request: PlanRequest, field: str) -> Any:
    value: Any = request
    if field == "dataset.packing":  # per dataset, and left open by all where it is searched
        return AUTO
    for part in field.split("."):
        value = getattr(value, part)
    return value


def _world(request: PlanRequest, rows: Rows) -> Decision:
    chosen = rows[0][0]
    wanted = request.distributed.gpu_count
    if wanted is not None:
        return user_decision(request, "distributed.gpu_count", wanted)
    because = f"all of the inventory's {chosen.accelerator}{_other_kinds(rows)}"
    return Decision(field="distributed.gpu_count", value=chosen.world_size, because=because, source="default")


def _other_kinds(rows: Rows) -> str:
    """The best plan of each other kind, beside the chosen one's time and cost."""
    best: dict[str, Callable[[], Estimate]] = {}
    for candidate, estimate in rows:
        best.setdefault(candidate.accelerator, estimate)
    if len(best) == 1:
        return ""
    return ": " + ", ".join(f"{name} {_time_and_cost(estimate())}" for name, estimate in best.items())


def _time_and_cost(estimate: Estimate) -> str:
    time = estimate.time
    if time.total_seconds is None:
        return f"{duration(time.step_seconds)} a step"
    return duration(time.total_seconds) + ("" if time.cost_usd is None else f" for ${time.cost_usd:,.2f}")


def _global_batch(request: PlanRequest, chosen: Candidate) -> Decision:
    field, total = "training.global_batch_size", chosen.global_batch_size
    if request.training.global_batch_size != AUTO:
        return user_decision(request, field, total)
    parts = f"{chosen.micro_batch_size} x {chosen.gradient_accumulation_steps} x {chosen.data_parallel}"
    training = request.training
    if training.micro_batch_size != AUTO and training.gradient_accumulation_steps != AUTO:
        because = f"what your micro-batch and accumulation give: {parts}"
        return Decision(field=field, value=total, because=because, source="user")
    because = f"at least {DEFAULT_GLOBAL_BATCH} sequences a step, which all ranks can share evenly: {parts}; set it to keep it anywhere"
    return Decision(field=field, value=total, because=because, source="rule:default-global-batch")


def _searched(request: PlanRequest, field: str, name: str, rows: Rows, best: Pass) -> Decision:
    chosen, estimate = rows[0]
    value = getattr(chosen, name)
    if _wanted(request, field) != AUTO:
        return user_decision(request, field, value)
    if field == "training.gradient_checkpointing" and request.training.checkpoint_above_parameters is not None:
        return Decision(field=field, value=value, because="follows checkpoint_above_parameters", source="user")
    because = _compared(name, value, estimate(), rows) + _ruled_out(name, best)
    if name == "compile":
        because += _paid_back(value, estimate(), rows)
    return Decision(field=field, value=value, because=because, source="search")


def _ruled_out(name: str, best: Pass) -> str:
    """Values that rules have left no candidate of, each with the rule: they were not among those compared."""
    attribute = {"gradient_checkpointing": "checkpointing"}.get(name, name)
    if attribute not in Combination.__dataclass_fields__:
        return ""
    left = {getattr(c, attribute) for c in best.combinations}
    ruled: dict[Any, str] = {}
    for combination, refusal in best.refused:
        if getattr(combination, attribute) not in left:
            ruled.setdefault(getattr(combination, attribute), refusal.rule.id)
    by_rule: dict[str, list[str]] = {}
    for value, rule in ruled.items():
        by_rule.setdefault(rule, []).append(str(value))
    return "".join(f"; ruled out by {rule}: {', '.join(values)}" for rule, values in by_rule.items())


WORDS: Final = ("compile", "kernels", "attention", "packing")
"""Choices that are no machinery: among plans that are as fast as far as can be told, the faster one (rank.py)."""


def _compared(name: str, value: Any, estimate: Estimate, rows: Rows) -> str:
    """What the best plan with another value would cost: the reason is the difference."""
    kind = rows[0][0].accelerator
    others = [(c, e) for c, e in rows[1:] if getattr(c, name) != value and c.accelerator == kind]
    if not others:
        return "the only value with which a plan fits"
    candidate, other = others[0][0], others[0][1]()
    slower = estimate.time.tokens_per_second / other.time.tokens_per_second - 1  # packed or not, at equal work
    memory = other.memory.device_used_bytes - estimate.memory.device_used_bytes
    alternative = _alternative(getattr(candidate, name), estimate, other)
    change = f"{'+' if memory >= 0 else '-'}{gib(abs(memory))} a device"
    if slower > 0.03:
        return f"fastest of those that fit: {alternative} ({slower:+.0%}, {change})"
    if slower < -0.03:
        return f"best by policy.objective: {alternative} ({slower:+.0%}, {change})"
    if name in WORDS and slower > 0:
        return f"fastest, by less than is surely told apart: {alternative} ({slower:+.1%}, {change})"
    return f"as fast as any, with the least machinery: {alternative} ({slower:+.1%}, {change})"


def _paid_back(compiled: bool, estimate: Estimate, rows: Rows) -> str:
    """After how many steps what compiling took has been saved, beside the best plan that differs in it."""
    others = (e for c, e in rows[1:] if c.compile != compiled and c.packing == rows[0][0].packing)
    other = next(others, None)
    if other is None:
        return ""
    one, two = (estimate, other()) if compiled else (other(), estimate)
    taken = sum(i.seconds for i in one.time.run_breakdown if i.item == "compilation")
    saved = two.time.step_seconds - one.time.step_seconds
    if saved <= 0:
        return f"; compiling takes {duration(taken)} and saves nothing"
    return f"; compiling takes {duration(taken)}, which {math.ceil(taken / saved):,} steps pay for"


def _alternative(value: Any, estimate: Estimate, other: Estimate) -> str:
    """Steps are compared by their seconds; where one of them computes more padding, by the tokens that are none."""
    mine, theirs = estimate.time, other.time
    if abs(mine.padding_share - theirs.padding_share) < PADDING_TOLD:
        return f"the best plan with {_word(value)} takes {duration(theirs.step_seconds)} a step"
    return (
        f"{theirs.padding_share:.0%} of what the best plan with {_word(value)} computes is padding, {mine.padding_share:.0%} "
        f"here, and of the data it trains {theirs.tokens_per_second:,.0f} tokens a second, not {mine.tokens_per_second:,.0f}"
    )


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _quantization(request: PlanRequest, chosen: Candidate, best: Pass) -> Decision:
    field = "model.quantization"
    if request.model.quantization != AUTO:
        return user_decision(request, field, chosen.quantization)
    if request.adapter is None:
        because = "without an adapter all weights are trained, and quantized weights cannot be"
    elif chosen.quantization == "none":
        because = "exact weights fit, and quantized ones would only add dequantization to every pass"
    else:
        limit = gib(best.costed.capacity_bytes)
        because = f"exact weights do not fit in {limit} with any split of the batch; quantized ones do"
    return Decision(field=field, value=chosen.quantization, because=because, source="search")
