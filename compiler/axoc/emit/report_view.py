"""What report.html shows beyond PLAN.md: the pictures, each with its figures as a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from axoc.emit import text
from axoc.emit.charts import Chart, Line, Mark, front, polyline, staircase, x_scale, y_scale
from axoc.emit.tree import Level, decision_tree
from axoc.ir.plan import Plan, Scored
from axoc.units import GIB, duration, gib

COLOURS: Final = 12
"""Of the template's palette for items, which begins anew with the thirteenth; two more are for what is no item."""
RIGHT_EDGE: Final = 386.0
PLACE: Final = {"plan": "the plan", "front": "on the front", "other": ""}
SECONDS_IN: Final = (("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A part of a bar, in percent of the chart's width."""

    x: float
    width: float
    colour: int
    label: str


@dataclass(frozen=True, kw_only=True)
class Stack:
    name: str
    total: str
    segments: tuple[Segment, ...]
    peak: bool


@dataclass(frozen=True, kw_only=True)
class Phases:
    """Device memory over the phases, stacked by item."""

    stacks: tuple[Stack, ...]
    legend: tuple[tuple[int, str], ...]
    limit_percent: float
    limit: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class ReportView:
    phases: Phases | None
    charts: tuple[Chart, ...]
    tree: tuple[Level, ...]


def report_view(plan: Plan) -> ReportView:
    charts = (time_against_cost(plan), time_against_memory(plan), sequence_against_memory(plan))
    return ReportView(phases=phases(plan), charts=tuple(c for c in charts if c is not None), tree=decision_tree(plan))


# --- memory over the phases


def phases(plan: Plan) -> Phases | None:
    """None of a plan that does not say what is live in which phase."""
    memory = plan.chosen.estimate.memory
    if not memory.by_phase:
        return None
    items = list(dict.fromkeys(i.item for p in memory.by_phase for i in p.items))
    scale = max(memory.capacity_bytes, memory.device_used_bytes, 1)
    tops = [sum(i.bytes for i in p.items) for p in memory.by_phase]
    by_name = [{i.item: i.bytes for i in p.items} for p in memory.by_phase]
    stacks = [
        Stack(
            name=p.phase.replace("_", ", "),
            total=gib(t),
            segments=_segments({i: b.get(i, 0) for i in items}, scale),
            peak=p.phase == memory.peak_phase,
        )
        for p, t, b in zip(memory.by_phase, tops, by_name, strict=True)
    ]
    peak, used = memory.peak_allocated_bytes, memory.device_used_bytes
    whole = {"allocated at the peak": peak, "held by the allocator, and the driver's": used - peak}
    last = Stack(name="used on the device", total=gib(used), segments=_segments(whole, scale, COLOURS), peak=False)
    return Phases(
        stacks=(*stacks, last),
        legend=tuple((n % COLOURS, item) for n, item in enumerate(items)),
        limit_percent=round(100 * memory.capacity_bytes / scale, 2),
        limit=gib(memory.capacity_bytes),
        header=("item", *(s.name for s in stacks)),
        rows=tuple((item, *(gib(b[item]) if b.get(item) else "" for b in by_name)) for item in items),
    )


def _segments(sizes: dict[str, int], scale: int, first_colour: int = 0) -> tuple[Segment, ...]:
    """In the order of ``sizes``; colours from the palette in turn, or from the first of those beyond it."""
    found, x = [], 0.0
    for number, (item, size) in enumerate(sizes.items()):
        width = 100 * size / scale
        colour = first_colour + number if first_colour else number % COLOURS
        if width > 0:
            label = f"{item}: {gib(size)}"
            found.append(Segment(x=round(x, 3), width=round(width, 3), colour=colour, label=label))
        x += width
    return tuple(found)


# --- candidates on two axes


def time_against_cost(plan: Plan) -> Chart | None:
    """None where the run's length or a price is not known."""
    return _scatter(
        plan,
        "cost",
        "Candidates: time against cost",
        "cost of the whole run, $",
        lambda s: s.estimate.time.cost_usd,
        lambda v: f"{v:,.0f}" if v >= 10 or v == 0 else f"{v:.2g}",
    )


def time_against_memory(plan: Plan) -> Chart | None:
    return _scatter(
        plan,
        "memory",
        "Candidates: time against memory",
        "used of each device, GiB",
        lambda s: s.estimate.memory.device_used_bytes / GIB,
        lambda v: f"{v:.3g}",
    )


def _scatter(
    plan: Plan,
    name: str,
    title: str,
    y_label: str,
    measure: Callable[[Scored], float | None],
    write: Callable[[float], str],
) -> Chart | None:
    shown = _distinct([plan.chosen, *plan.candidates, *plan.pareto])
    of_run = all(s.estimate.time.total_seconds is not None for s in shown)
    seconds = [(s.estimate.time.total_seconds if of_run else s.estimate.time.step_seconds) or 0.0 for s in shown]
    values = [v for v in (measure(s) for s in shown) if v is not None]
    if len(values) < len(shown) or len(shown) < 2:
        return None
    unit, per = next((u, p) for u, p in SECONDS_IN if max(seconds) >= 2 * p or p == 1.0)
    points = [(t / per, v) for t, v in zip(seconds, values, strict=True)]
    x, y = x_scale([p[0] for p in points], from_zero=False), y_scale([p[1] for p in points], from_zero=False)
    edge = front(points)
    kinds = ["plan" if i == 0 else "front" if p in edge else "other" for i, p in enumerate(points)]
    order = sorted(range(len(points)), key=lambda i: ("other", "front", "plan").index(kinds[i]))
    what = "run" if of_run else "step"
    best = text.knobs(plan.chosen.candidate)
    return Chart(
        id=name,
        title=title,
        summary=f"{len(points)} candidates; the plan, {best}, takes {duration(seconds[0])} a {what} and {write(values[0])} in "
        f"{y_label}. On the Pareto front, which none beats in both: {len(edge)}.",
        x_label=f"time of a {what}, {unit}",
        y_label=y_label,
        x_ticks=x.ticks(lambda v: f"{v:,.4g}"),
        y_ticks=y.ticks(write),
        marks=tuple(
            Mark(x=x.at(points[i][0]), y=y.at(points[i][1]), kind=kinds[i], label=text.knobs(shown[i].candidate))
            for i in order
        ),
        lines=(Line(points=polyline(staircase(edge, x.high, y.high), x, y), kind="front"),),
        legend=(("plan", "the plan"), ("front", "Pareto front"), ("other", "other candidates that fit")),
        header=("plan", "on", f"time of a {what}", y_label, ""),
        rows=tuple(
            (
                text.knobs(s.candidate),
                s.candidate.accelerator,
                duration(t),
                write(v),
                PLACE[k],
            )
            for s, t, v, k in zip(shown, seconds, values, kinds, strict=True)
        ),
    )


def _distinct(scored: Sequence[Scored]) -> list[Scored]:
    found: dict[object, Scored] = {}
    for one in scored:
        found.setdefault(one.candidate, one)
    return list(found.values())


# --- sequence length


def sequence_against_memory(plan: Plan) -> Chart | None:
    """The plan with other sequence lengths, all else held, against the device's limit."""
    knob = next((k for k in plan.margin.knobs if k.curve), None) if plan.margin is not None else None
    if knob is None or len(knob.curve) < 2:
        return None
    limit = plan.chosen.estimate.memory.capacity_bytes
    points = [(float(p.value), p.device_used_bytes / GIB) for p in knob.curve]
    x, y = x_scale([p[0] for p in points]), y_scale([*(p[1] for p in points), limit / GIB])
    planned = next(p for p in points if p[0] == knob.value)
    reach = f"fits up to {knob.fits_to:,}" + (", as far as the model goes" if knob.breaks_at is None else "")
    level = [(x.low, limit / GIB), (x.high, limit / GIB)]
    return Chart(
        id="sequence",
        title="Sequence length against memory",
        summary=f"Planned {knob.value:,} tokens, {planned[1]:.1f} GiB of each device; with all else held it {reach}. "
        f"The limit is {gib(limit)}.",
        x_label="tokens in a row",
        y_label="used of each device, GiB",
        x_ticks=x.ticks(lambda v: f"{v:,.0f}"),
        y_ticks=y.ticks(lambda v: f"{v:g}"),
        marks=(Mark(x=x.at(planned[0]), y=y.at(planned[1]), kind="plan", label=f"planned: {knob.value:,} tokens"),),
        lines=(
            Line(points=polyline(points, x, y), kind="curve"),
            Line(
                points=polyline(level, x, y),
                kind="limit",
                label=f"limit {gib(limit)}",
                x=RIGHT_EDGE,
                y=y.at(limit / GIB),
            ),
        ),
        legend=(("plan", "as planned"), ("curve", "with other lengths"), ("limit", f"limit, {gib(limit)}")),
        header=("tokens in a row", "used of each device"),
        rows=tuple((f"{p.value:,}", gib(p.device_used_bytes)) for p in knob.curve),
    )
