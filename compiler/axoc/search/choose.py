"""The search, top to bottom: passes over scenarios, ranking, the plan or why there is none."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, partial
from typing import Final

import numpy as np

from axoc.cost.scenario import Scenario
from axoc.errors import Diagnostic, UserError
from axoc.ir.facts import ClusterFacts, DataFacts, ModelFacts
from axoc.ir.plan import Decision, NoPlan, Plan, Rejection, Schedule
from axoc.ir.request import AUTO, PlanRequest
from axoc.search.adapter_inputs import adapter_decisions
from axoc.search.disk_unknown import disk_warnings
from axoc.search.explain import (
    decisions,
    follows_evaluation,
    objective_decision,
    schedule_decisions,
    threshold_decisions,
    unit_decisions,
)
from axoc.search.freed import with_freed_memory
from axoc.search.limits import beyond_usual_if_nothing_else, host_warnings
from axoc.search.margin import margin
from axoc.search.objective import objective
from axoc.search.pareto import pareto
from axoc.search.passes import Pass, make_candidate, run_pass
from axoc.search.precision import Precision, precisions
from axoc.search.rank import order
from axoc.search.saving import planned_save_steps, saving_reason
from axoc.search.scenarios import (
    capacity_bytes,
    row_lengths,
    save_every,
    scenario_of,
    sized_cluster,
)
from axoc.search.space import Combination, combinations, shared_global_batch
from axoc.search.target_warnings import target_warnings
from axoc.search.warnings import packed_one_by_one, warnings
from axoc.search.ways import Ways, ways

MAX_RUNNERS_UP: Final = 20
MAX_REJECTIONS: Final = 40
NEAREST: Final = 5


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All the search looks things up in."""

    model: ModelFacts
    clusters: tuple[ClusterFacts, ...]
    data: tuple[DataFacts, ...]
    spec_digest: str
    notes: tuple[str, ...] = ()
    """Warnings of the look-ups themselves."""


def search(request: PlanRequest, facts: Facts) -> Plan | NoPlan:
    """The best plan for a request. Raises UserError where no kind of the inventory has enough accelerators."""
    passes = all_passes(request, facts)
    ranked = settled(request, passes)
    rejections = rejected(passes)
    if not ranked:
        return no_plan(request, facts, rejections)
    best, row = ranked[0]
    cluster = best.costed.scenario.cluster
    chosen = best.scored(row)
    planned = schedule(request, best, row)
    wanted = objective(request, passes)
    return Plan(
        request=request,
        spec_digest=facts.spec_digest,
        model=facts.model,
        cluster=cluster,
        data=facts.data,
        chosen=chosen,
        schedule=planned,
        decisions=(
            *_decisions(request, facts, passes, ranked),
            *unit_decisions(request, best, row),
            *threshold_decisions(request, chosen.candidate, facts.model.num_layers),
            *schedule_decisions(request, planned, saving_reason(best, row)),
            *adapter_decisions(request, chosen.candidate, cluster),
            objective_decision(request, wanted),
        ),
        candidates=tuple(p.scored(r) for p, r in ranked[:MAX_RUNNERS_UP]),
        rejections=rejections,
        warnings=tuple(facts.notes)
        + warnings(request, facts.model, chosen)
        + packed_one_by_one(request, facts.model, cluster, chosen)
        + host_warnings(cluster, chosen.estimate.memory)
        + disk_warnings(request, facts.data)
        + target_warnings(request, cluster),
        fitting=len(ranked),
        objective=wanted.kind,
        pareto=tuple(p.scored(r) for p, r in pareto(ranked, wanted)),
        margin=margin(best, row),
        refused=sum(int((~p.fits()).sum()) + len(p.refused) + len(p.impossible) for p in passes),
    )


def scenarios(request: PlanRequest, facts: Facts) -> list[tuple[Scenario, int]]:
    """Of each kind and precision, with the sequences of a step, which all kinds share."""
    sized = [s for s in (sized_cluster(request, c) for c in facts.clusters) if s is not None]
    if not sized:
        raise UserError(_too_few(request, facts.clusters))
    world = math.lcm(*(c.world_size for c in sized))
    kinds = [(cluster, precision) for cluster in sized for precision in precisions(request)]
    return [_scenario(request, facts, cluster, precision, world) for cluster, precision in kinds]


def all_passes(request: PlanRequest, facts: Facts) -> list[Pass]:
    return beyond_usual_if_nothing_else([_costed(request, *found) for found in scenarios(request, facts)])


def _ways(request: PlanRequest, facts: Facts, cluster: ClusterFacts) -> Ways:
    return ways(request, facts.model, cluster.accelerator, row_lengths(request, facts.data))


def _scenario(
    request: PlanRequest, facts: Facts, cluster: ClusterFacts, precision: Precision, world: int
) -> tuple[Scenario, int]:
    """``world``: a multiple of the world sizes of all kinds, which share one global batch."""
    found = _ways(request, facts, cluster)
    total = shared_global_batch(request, cluster, combinations(request, cluster, facts.model), world)
    return scenario_of(request, facts.model, cluster, found.all, *precision, total, facts.data), total


def _costed(request: PlanRequest, scenario: Scenario, total: int) -> Pass:
    return run_pass(request, scenario, capacity_bytes(request, scenario.cluster), total)


def settled(request: PlanRequest, passes: list[Pass]) -> list[tuple[Pass, int]]:
    """Ranked rows, the first of which fits by a replay of its allocations too. What does not is ranked again."""
    wanted, seen = objective(request, passes), set[tuple[int, int]]()
    while True:
        ranked = order(request, _exact_first(passes), wanted)
        if not ranked or (id(ranked[0][0]), ranked[0][1]) in seen:
            return ranked
        best, row = ranked[0]
        seen.add((id(best), row))
        best.settle(row)


def _exact_first(passes: list[Pass]) -> list[Pass]:
    """Quantization left open is used only where exact weights fit nowhere."""
    exact = [p for p in passes if p.costed.scenario.quantization == "none"]
    return exact if any(p.fits().any() for p in exact) else passes


def _decisions(
    request: PlanRequest, facts: Facts, passes: list[Pass], ranked: list[tuple[Pass, int]]
) -> tuple[Decision, ...]:
    best, row = ranked[0]
    cluster = best.costed.scenario.cluster
    fixed = _ways(request, facts, cluster).decisions
    found = decisions(request, fixed, [(p.candidate(r), cache(partial(p.costed.estimate, r))) for p, r in ranked], best)
    if best.costed.scenario.quantization == "none":
        return found
    wanted = best.costed.scenario.with_all(quantization="none")
    exact = next((p for p in passes if p.costed.scenario == wanted), None)
    exact = exact or _costed(request, *_scenario(request, facts, cluster, ("none", wanted.optimizer), best.total))
    return with_freed_memory(request, found, best, row, exact)


def schedule(request: PlanRequest, best: Pass, row: int) -> Schedule:
    """Evaluation and checkpoints: as set, else four times a run of known length, else each epoch; checkpoints more often
    where failures ask for it.

    With early stopping the best evaluation must have been saved: checkpoints left open follow evaluations that are set.
    """
    training, scenario = request.training, best.costed.variant(row)
    evaluates = scenario.evaluates

    def steps(wanted: int | str, automatic: int | None) -> int | None:
        return automatic if wanted == AUTO else int(wanted)

    usual = save_every(request, scenario.steps)
    evaluation = steps(training.eval_steps, usual) if evaluates else None
    save = usual if scenario.steps is None else planned_save_steps(best, row)
    if follows_evaluation(request):
        assert evaluation is not None
        save = max(1, (save or 0) // evaluation) * evaluation
    return Schedule(
        total_steps=scenario.steps,
        eval_steps=evaluation,
        save_steps=save,
        parameters=scenario.sizes.total,
        trainable_parameters=scenario.trainable,
    )


def rejected(passes: list[Pass]) -> tuple[Rejection, ...]:
    """The nearest miss for each strategy and cause first, then the other near misses, by shortfall."""
    ruled = [r for p in passes for r in _ruled_out(p)]
    missed = [(p.worst_shortfall()[r], p, int(r)) for p in passes for r in np.flatnonzero(~p.fits())]
    missed.sort(key=lambda item: (item[0], item[2]))
    first: dict[tuple[str, str, str], tuple[Pass, int]] = {}
    for _, found, row in missed:
        combo = found.combinations[row]
        first.setdefault((combo.strategy, combo.offload, combo.checkpointing), (found, row))
    nearest = [found.rejection(row) for found, row in first.values()]
    return tuple(ruled + nearest)[:MAX_REJECTIONS]


def _ruled_out(found: Pass) -> list[Rejection]:
    """One rejection for each rule and strategy, standing for all candidates it refused."""
    seen: dict[tuple[str, str], Rejection] = {}
    scenario = found.costed.scenario
    for combo, refusal in found.refused:
        rejection = Rejection(
            candidate=make_candidate(scenario, combo, 1, max(1, found.total // combo.data_parallel)),
            rule=refusal.rule.id,
            reason=refusal.reason,
            fix=refusal.rule.fix,
            link=refusal.rule.link,
        )
        seen.setdefault((refusal.rule.id, combo.strategy), rejection)
    for combo in found.impossible:
        seen.setdefault(("batch-arithmetic", combo.strategy), _impossible(found, combo))
    return list(seen.values())


def _impossible(found: Pass, combo: Combination) -> Rejection:
    """The batch cannot be split: global = micro x accumulation x data parallel has no whole solution."""
    degree = combo.data_parallel
    fitting = -(-found.total // degree) * degree
    return Rejection(
        candidate=make_candidate(found.costed.scenario, combo, 1, 1),
        rule="batch-arithmetic",
        reason=f"{found.total} sequences a step cannot be split over {degree} data-parallel ranks with the sizes you set",
        fix=f"set training.global_batch_size: {fitting} and leave micro_batch_size and gradient_accumulation_steps auto",
        link="https://www.deepspeed.ai/docs/config-json/#batch-size-related-parameters",
    )


def no_plan(request: PlanRequest, facts: Facts, rejections: tuple[Rejection, ...]) -> NoPlan:
    from axoc.search.relax import smallest_change

    costed = [r for r in rejections if r.estimate is not None]
    return NoPlan(
        request=request,
        spec_digest=facts.spec_digest,
        rejections=rejections,
        nearest=tuple(costed[:NEAREST]),
        smallest_change=smallest_change(request, facts),
        warnings=facts.notes,
    )


def _too_few(request: PlanRequest, clusters: tuple[ClusterFacts, ...]) -> Diagnostic:
    have = ", ".join(c.label for c in clusters)
    wanted = request.distributed.gpu_count
    most = max(c.world_size for c in clusters)
    return Diagnostic(
        message=f"distributed.gpu_count is {wanted}, which the inventory {have} cannot give",
        expected=f"at most {most}, in whole nodes",
        fix=f"set distributed.gpu_count: {most}, or pass a larger --inventory, e.g. {clusters[0].accelerator.name}:{wanted}",
    )
