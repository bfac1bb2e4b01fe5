"""`axoc verify`: the closed form of memory, phase by phase, and of the step's time beside a trace of the real modelling code."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from axoc import driver
from axoc.cost.traced import traced_time
from axoc.emit.bundle import strategy_config
from axoc.emit.job import job_dict
from axoc.emit.placement import placement
from axoc.errors import Diagnostic, UserError
from axoc.facts.catalog import find_entry
from axoc.inputs import find, read_bytes
from axoc.ir.canonical import dumps
from axoc.ir.plan import NoPlan, Plan
from axoc.ir.request import PlanRequest
from axoc.review import tracing
from axoc.search.chosen import scenario_of_plan
from axoc.units import GIB, duration

TOLERANCE: Final = 0.03
"""The share by which the two may differ and still be said to agree: the margin that a plan keeps free by default."""
DEVICE_USED: Final = "device used"
TIMED: Final = ("single", "ddp")
"""Strategies of which the trace tells a step's time: under the others it runs a model of the engine, or collectives that say nothing."""
TRACED: Final = ("sft", "pretrain")
"""Objectives whose step the trace knows."""
PHASES: Final[Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "load": (("load",), ("load",)),
    "forward": (("forward",), ("forward",)),
    "loss": (("loss",), ("loss",)),
    "backward": (
        ("backward_first", "backward_recompute", "backward_last", "backward_embedding"),
        ("backward_first", "backward_middle", "backward_last"),
    ),
    "optimizer": (("optimizer",), ("optimizer",)),
    "evaluate": (("evaluate",), ("evaluate",)),
}
"""Phases that are compared: their parts in the closed form, and in the trace."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the comparison, in bytes of one device."""

    name: str
    closed_form: int
    trace: int

    @property
    def share(self) -> float:
        """By how much the closed form is above the trace, as a share of the trace."""
        return self.closed_form / self.trace - 1

    @property
    def agrees(self) -> bool:
        return abs(self.share) <= TOLERANCE


@dataclass(frozen=True, kw_only=True)
class Step:
    """Seconds of one optimizer step."""

    closed_form: float
    trace: float

    @property
    def share(self) -> float:
        return self.closed_form / self.trace - 1


@dataclass(frozen=True, kw_only=True)
class Verified:
    plan: Plan
    rows: tuple[Row, ...]
    """The phases, then the two peaks."""
    seconds: float
    layers: tuple[int, ...]
    """Depths that were run."""
    notes: tuple[str, ...] = ()
    """What the trace had to assume."""
    step: Step | None = None
    """None where the trace tells no time."""
    capacity_bytes: float = math.inf
    """What the plan may use of a device."""

    @property
    def too_much(self) -> tuple[Row, ...]:
        """What does not fit by the trace, though by the closed form it does."""
        return tuple(r for r in self.rows if r.name == DEVICE_USED and r.trace > self.capacity_bytes)

    @property
    def differing(self) -> tuple[Row, ...]:
        return tuple(r for r in self.rows if not r.agrees)


def verify(spec: Path, inventory: str | None, tracer: tracing.Tracer) -> Verified:
    """Plans, has the chosen candidate traced by ``tracer``, compares. Raises UserError."""
    planned = driver.plan(spec, inventory)
    plan = traceable(planned.result, spec)
    files = strategy_config(plan, planned.inputs.config_text)
    traced = tracer.run(dumps(job_dict(plan)), config_text(plan.request, spec.parent), files)
    return Verified(
        plan=plan,
        rows=rows(plan, traced),
        seconds=traced["seconds"],
        layers=tuple(traced["layers_run"]),
        notes=tuple(traced.get("notes", ())),
        step=step(plan, traced),
        capacity_bytes=plan.chosen.estimate.memory.capacity_bytes,
    )


def step(plan: Plan, traced: Mapping[str, Any]) -> Step | None:
    """The time of a step, where the trace launches what the job does: without shards, and with rows that are full or packed."""
    scenario, columns = scenario_of_plan(plan)
    padded = scenario.lengths is not None and not scenario.packing
    if plan.chosen.candidate.strategy not in TIMED or padded or scenario.mixed_precision == "fp8":
        return None
    found = traced_time(scenario, columns, list(zip(traced["layers_run"], traced["launches"], strict=True)))
    return Step(closed_form=plan.chosen.estimate.time.step_seconds, trace=float(found.step_seconds[0]))


def traceable(result: Plan | NoPlan, spec: Path) -> Plan:
    """The plan, where there is one that the trace knows how to run. Raises UserError."""
    if isinstance(result, NoPlan):
        fix = "axoc plan says what is missing"
        raise UserError(Diagnostic(message="no plan fits, so there is nothing to verify", file=str(spec), fix=fix))
    objective = result.request.training.objective
    if objective not in TRACED:
        message = f"the trace runs sft and pretrain, and this plan's objective is {objective}"
        fix = "verify the same spec with training.objective: sft; what the objective adds rests on docs/objectives.md"
        raise UserError(Diagnostic(message=message, file=str(spec), fix=fix))
    if result.model.vision is not None:
        message = (
            "the trace runs decoders on tokens, and this plan is of a model that sees: its images, and what is made of them, "
            "are not followed"
        )
        fix = "verify the same decoder with rows of text; what images add rests on docs/formats.md"
        raise UserError(Diagnostic(message=message, file=str(spec), fix=fix))
    if placement(result).device == "cpu":
        fix = "pass --inventory, e.g. h100-sxm-80gb"
        raise UserError(Diagnostic(message="this plan is for a CPU: a trace is of a GPU's memory", fix=fix))
    return result


def config_text(request: PlanRequest, folder: Path) -> str:
    """The model's config.json: from model.config, the model's own folder, or the catalog."""
    model = request.model
    if model.config is not None:
        return read_bytes(find(model.config, folder), "model.config").decode("utf-8", "replace")
    own = find(model.id or "", folder) / "config.json"
    if model.id is not None and own.is_file():
        return read_bytes(own, "model.config").decode("utf-8", "replace")
    entry = find_entry(model.id or "")
    assert entry is not None, model.id  # planning looked it up before
    return json.dumps(entry.config)


def rows(plan: Plan, traced: Mapping[str, Any]) -> tuple[Row, ...]:
    """Phases that both know, then the peaks."""
    memory = plan.chosen.estimate.memory
    closed, seen = {item.item: item.bytes for item in memory.phases}, traced["phases"]
    outside = memory.device_used_bytes - memory.peak_reserved_bytes  # context and communicators: not torch's memory
    found = []
    for name, (ours, theirs) in PHASES.items():
        left, right = (max((v[p] for p in parts if p in v), default=0) for v, parts in ((closed, ours), (seen, theirs)))
        if left and right:
            found.append(Row(name=name, closed_form=left, trace=right))
    peaks = (
        Row(name="peak allocated", closed_form=memory.peak_allocated_bytes, trace=traced["peak_allocated_bytes"]),
        Row(name="peak reserved", closed_form=memory.peak_reserved_bytes, trace=traced["peak_reserved_bytes"]),
        Row(name=DEVICE_USED, closed_form=memory.device_used_bytes, trace=traced["peak_reserved_bytes"] + outside),
    )
    return (*found, *peaks)


def as_text(verified: Verified) -> str:
    """A table, then in words where the two differ."""
    depths = " and ".join(str(d) for d in verified.layers)
    lines = [
        f"Closed form and trace of {verified.plan.request.name} (GiB on one device; {depths} layers run in "
        f"{duration(verified.seconds)})",
        f"  {'phase':<16}{'closed form':>12}{'trace':>10}{'difference':>12}",
    ]
    for row in verified.rows:
        difference = (row.closed_form - row.trace) / GIB
        lines.append(
            f"  {row.name:<16}{row.closed_form / GIB:>12.2f}{row.trace / GIB:>10.2f}{difference:>+12.2f}"
            f"{100 * row.share:>+8.1f}%{'' if row.agrees else '  <'}"
        )
    if verified.step is not None:
        lines.append(
            f"  {'step, seconds':<16}{verified.step.closed_form:>12.4f}{verified.step.trace:>10.4f}"
            f"{verified.step.closed_form - verified.step.trace:>+12.4f}{100 * verified.step.share:>+8.1f}%"
        )
    notes = [f"Note: {note}." for note in verified.notes]
    return "\n".join([*lines, "", *_in_words(verified), *notes]) + "\n"


def _in_words(verified: Verified) -> list[str]:
    beyond = [
        f"By the trace this plan does not fit: it uses {row.trace / GIB:.2f} of {verified.capacity_bytes / GIB:.2f} GiB. "
        "Give the planner less: distributed.memory_budget_per_gpu_gb."
        for row in verified.too_much
    ]
    if not verified.differing:
        return [*beyond, f"They agree within {TOLERANCE:.0%} in every phase."]
    return beyond + [
        f"They differ by more than {TOLERANCE:.0%} in {row.name}: the closed form says {abs(row.share):.1%} "
        f"{'more' if row.share > 0 else 'less'} than the trace."
        for row in verified.differing
    ]


def as_dict(verified: Verified) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "tolerance": TOLERANCE,
        "agrees": not verified.differing,
        "fits": not verified.too_much,
        "rows": [
            {
                "name": r.name,
                "closed_form_bytes": r.closed_form,
                "trace_bytes": r.trace,
                "difference_percent": round(100 * r.share, 3),
                "agrees": r.agrees,
            }
            for r in verified.rows
        ],
        "step": None
        if verified.step is None
        else {"closed_form_seconds": verified.step.closed_form, "trace_seconds": verified.step.trace},
        "layers_run": list(verified.layers),
        "seconds": verified.seconds,
        "notes": list(verified.notes),
    }
