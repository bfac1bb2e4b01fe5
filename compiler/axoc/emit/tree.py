"""The decision tree: at each choice the values there were, what the best plan with each would take, or why it was refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from axoc.emit import text
from axoc.ir.plan import Decision, Plan, Rejection, Scored
from axoc.units import duration, gib

LEVELS: Final = (
    ("accelerator", "accelerator"),
    ("distributed.type", "strategy"),
    ("distributed.model_parallel_size", "tensor_parallel"),
    ("distributed.offload", "offload"),
    ("model.quantization", "quantization"),
    ("training.gradient_checkpointing", "gradient_checkpointing"),
    ("training.micro_batch_size", "micro_batch_size"),
    ("dataset.packing", "packing"),
    ("model.attention", "attention"),
    ("model.kernels", "kernels"),
    ("model.compile", "compile"),
)
"""Choices in the order in which people make them: field of the spec, field of the candidate."""


@dataclass(frozen=True, kw_only=True)
class Branch:
    value: str
    chosen: bool
    outcome: str
    """What the best plan with it takes, or why there is none."""


@dataclass(frozen=True, kw_only=True)
class Level:
    field: str
    because: str
    source: str
    branches: tuple[Branch, ...]
    """The chosen one last, since the next level hangs from it."""


def decision_tree(plan: Plan) -> tuple[Level, ...]:
    """Levels from the root down; one with a single value and no refusal is left out."""
    return tuple(_levels(plan))


def _levels(plan: Plan) -> Iterator[Level]:
    decided = {d.field: d for d in plan.decisions}
    best = {s.candidate for s in plan.candidates}
    candidates = [*plan.candidates, *(s for s in plan.pareto if s.candidate not in best)]
    rejections = list(plan.rejections)
    for field, name in LEVELS:
        chosen = getattr(plan.chosen.candidate, name)
        branches = tuple(_branches(name, chosen, candidates, rejections, plan))
        if len(branches) > 1:
            yield _level(field, decided.get(field), branches)
        candidates = [c for c in candidates if getattr(c.candidate, name) == chosen]
        rejections = [r for r in rejections if getattr(r.candidate, name) == chosen]


def _level(field: str, decision: Decision | None, branches: tuple[Branch, ...]) -> Level:
    because = text.printable(decision.because) if decision is not None else ""
    return Level(field=field, because=because, source=decision.source if decision else "search", branches=branches)


def _branches(
    name: str, chosen: Any, candidates: Sequence[Scored], rejections: Sequence[Rejection], plan: Plan
) -> Iterator[Branch]:
    best: dict[Any, Scored] = {}
    for candidate in candidates:  # best first
        best.setdefault(getattr(candidate.candidate, name), candidate)
    refused: dict[Any, Rejection] = {}
    for rejection in rejections:
        refused.setdefault(getattr(rejection.candidate, name), rejection)
    for value, scored in best.items():
        if value != chosen:
            yield Branch(value=text.value(value), chosen=False, outcome=_takes(scored))
    for value, rejection in refused.items():
        if value not in best and value != chosen:
            outcome = f"refused by {rejection.rule}: {text.printable(rejection.reason)}"
            yield Branch(value=text.value(value), chosen=False, outcome=outcome)
    yield Branch(value=text.value(chosen), chosen=True, outcome=_takes(plan.chosen))


def _takes(scored: Scored) -> str:
    estimate = scored.estimate
    return f"{duration(estimate.time.step_seconds)} a step, {gib(estimate.memory.device_used_bytes)} a device"
