"""What PLAN.md and report.html show: rows of ready text, so that templates only loop."""

from __future__ import annotations

from dataclasses import dataclass

from axoc import __version__
from axoc.emit import text
from axoc.emit.margin import band_in_words, knob_rows, margin_sentence
from axoc.emit.placement import placement
from axoc.emit.replan import contract_sentence
from axoc.ir.estimate import MemoryEstimate
from axoc.ir.plan import UNCOUNTED, Decision, Plan, Scored
from axoc.search.resume import resume_sentence
from axoc.units import count, duration, gib

RUNNERS_UP = 5
CANDIDATES_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A row of the memory ledger; ``percent`` of the chart's width."""

    item: str
    size: str
    share: str
    percent: float


@dataclass(frozen=True, kw_only=True)
class DecisionRow:
    field: str
    value: str
    source: str
    because: str


@dataclass(frozen=True, kw_only=True)
class CandidateRow:
    rank: int
    knobs: str
    memory: str
    step: str
    tokens_per_second: str
    total: str
    cost: str
    accelerator: str
    chosen: bool = False


@dataclass(frozen=True, kw_only=True)
class RunRow:
    item: str
    time: str
    source: str


@dataclass(frozen=True, kw_only=True)
class PlanView:
    name: str
    axoc_version: str
    spec_digest: str
    headline: text.Headline
    settings: tuple[tuple[str, str], ...]
    decisions: tuple[DecisionRow, ...]
    ledger: tuple[Bar, ...]
    phases: tuple[Bar, ...]
    peak_phase: str
    memory: tuple[tuple[str, str], ...]
    margin: str
    """How far the plan is from not fitting, in a sentence; empty where it was not asked for."""
    knobs: tuple[tuple[str, str, str], ...]
    """Each setting, its planned value, how far it can go."""
    host: tuple[Bar, ...]
    host_phase: str
    disk: tuple[Bar, ...]
    used_percent: float
    limit_percent: float
    time: tuple[tuple[str, str], ...]
    breakdown: tuple[Bar, ...]
    run: tuple[RunRow, ...]
    """The whole run by item; of a run whose length is not known, what is known of it."""
    prices: tuple[tuple[str, str, str], ...]
    """Of an accelerator and hour: kind, price, source."""
    candidates: tuple[CandidateRow, ...]
    candidates_count: int
    objective: str
    pareto: tuple[CandidateRow, ...]
    """Candidates that none beats in time, money and device memory at once; the plan itself is marked."""
    refusals: tuple[text.RefusalGroup, ...]
    refusals_count: int
    warnings: tuple[str, ...]
    several_nodes: bool

    @property
    def runners_up(self) -> tuple[CandidateRow, ...]:
        return self.candidates[1 : 1 + RUNNERS_UP]


def plan_view(plan: Plan) -> PlanView:
    memory, time = plan.chosen.estimate.memory, plan.chosen.estimate.time
    scale = max(memory.device_used_bytes, memory.capacity_bytes, 1)
    return PlanView(
        name=text.printable(plan.request.name),
        axoc_version=__version__,
        spec_digest=plan.spec_digest,
        headline=text.headline(plan),
        settings=_settings(plan),
        decisions=tuple(_decision(d) for d in plan.decisions),
        ledger=_bars([(i.item, i.bytes) for i in memory.ledger], memory.peak_allocated_bytes, scale),
        phases=_bars([(i.item, i.bytes) for i in memory.phases], memory.peak_allocated_bytes, scale),
        peak_phase=memory.peak_phase,
        memory=_memory_rows(plan),
        margin=margin_sentence(plan) if plan.margin else "",
        knobs=tuple(knob_rows(plan.margin)) if plan.margin else (),
        host=_bars([(i.item, i.bytes) for i in memory.host_ledger], memory.host_bytes, max(1, memory.host_bytes)),
        host_phase=memory.host_phase,
        disk=_bars([(i.item, i.bytes) for i in memory.disk_ledger], memory.disk_bytes, max(1, memory.disk_bytes)),
        used_percent=round(100 * memory.device_used_bytes / scale, 2),
        limit_percent=round(100 * memory.capacity_bytes / scale, 2),
        time=_time_rows(plan),
        breakdown=_time_bars(time.breakdown, time.step_seconds),
        run=tuple(RunRow(item=i.item, time=duration(i.seconds), source=i.source) for i in time.run_breakdown),
        prices=_prices(plan),
        candidates=tuple(_candidate(i, s) for i, s in enumerate(plan.candidates[:CANDIDATES_SHOWN], start=1)),
        candidates_count=plan.candidates_count,
        objective=plan.objective,
        pareto=tuple(_candidate(i, s, chosen=plan.chosen) for i, s in enumerate(_front(plan), start=1)),
        refusals=tuple(text.refusal_groups(plan.rejections)),
        refusals_count=plan.rejections_count,
        warnings=tuple(text.printable(w) for w in plan.warnings if not w.startswith(UNCOUNTED)),
        several_nodes=placement(plan).nodes > 1,
    )


def _settings(plan: Plan) -> tuple[tuple[str, str], ...]:
    c, place = plan.chosen.candidate, placement(plan)
    return (
        (
            "model",
            f"{text.printable(plan.model.id)} ({count(plan.schedule.parameters)} parameters, {plan.model.family})",
        ),
        ("trained", f"{count(plan.schedule.trainable_parameters)} parameters, {c.optimizer}"),
        ("hardware", f"{plan.cluster.label}: {place.nodes} x {place.processes_per_node} processes"),
        ("strategy", text.STRATEGY_NAMES[c.strategy]),
        ("parallel", f"data {c.data_parallel} x tensor {c.tensor_parallel}"),
        (
            "batch",
            f"{c.global_batch_size} = {c.micro_batch_size} micro x {c.gradient_accumulation_steps} x {c.data_parallel}",
        ),
        ("longest row", f"{plan.request.max_seq_length:,} tokens{', packed' if c.packing else ''}"),
        ("checkpointing", f"{c.gradient_checkpointing} ({c.checkpointed_layers} of {plan.model.num_layers} layers)"),
        ("precision", f"{c.dtype} weights, mixed precision {c.mixed_precision}, quantization {c.quantization}"),
        ("kernels", f"attention {c.attention}, kernels {c.kernels}, compile {str(c.compile).lower()}"),
        ("offload", c.offload),
        ("trains", contract_sentence(plan)),
        ("resumes", resume_sentence(plan)),
    )


def _memory_rows(plan: Plan) -> tuple[tuple[str, str], ...]:
    estimate = plan.chosen.estimate
    memory = estimate.memory
    return (
        ("peak allocated", gib(memory.peak_allocated_bytes)),
        ("peak reserved", gib(memory.peak_reserved_bytes)),
        ("used on the device", gib(memory.device_used_bytes)),
        ("limit", gib(memory.capacity_bytes)),
        ("margin", _margin(memory)),
        ("host memory a node", gib(memory.host_bytes)),
        ("disk a node", gib(memory.disk_bytes) + (" and prepared rows" if _rows_are_uncounted(plan) else "")),
        ("error band", band_in_words(estimate)),
    )


def _margin(memory: MemoryEstimate) -> str:
    left = memory.capacity_bytes - memory.device_used_bytes
    return f"{gib(left)} ({text.percent(left / max(1, memory.capacity_bytes))})"


def _time_rows(plan: Plan) -> tuple[tuple[str, str], ...]:
    estimate = plan.chosen.estimate
    time = estimate.time
    return (
        ("step", duration(time.step_seconds)),
        ("tokens a second", f"{time.tokens_per_second:,.0f}"),
        ("model FLOPs utilization", text.percent(time.mfu)),
        ("padding", text.padding(time)),
        ("steps", "not known" if time.total_steps is None else f"{time.total_steps:,}"),
        ("whole run", text.optional_duration(time.total_seconds)),
        ("cost", text.optional_cost(time.cost_usd)),
        *((("cost on spot", text.optional_cost(time.spot_cost_usd)),) if time.spot_cost_usd is not None else ()),
        ("error band", f"±{text.percent(estimate.time_error_band)}"),
    )


def _prices(plan: Plan) -> tuple[tuple[str, str, str], ...]:
    """Only those that are known, a CPU's left out."""
    cluster = plan.cluster
    rows = (
        ("on demand", cluster.price_usd_per_accelerator_hour, cluster.price_source),
        ("spot", cluster.spot_price_usd_per_accelerator_hour, cluster.spot_price_source),
    )
    return tuple((kind, f"${p:,.4g}", text.printable(source)) for kind, p, source in rows if p is not None)


def _bars(items: list[tuple[str, int]], whole: int, scale: int) -> tuple[Bar, ...]:
    """Shares are of the peak, widths of the chart."""
    return tuple(
        Bar(item=item, size=gib(size), share=text.percent(size / max(1, whole)), percent=round(100 * size / scale, 2))
        for item, size in items
    )


def _time_bars(parts: tuple[tuple[str, float], ...], whole: float) -> tuple[Bar, ...]:
    shares = [(part, seconds, seconds / whole if whole else 0.0) for part, seconds in parts]
    return tuple(
        Bar(item=part, size=duration(seconds), share=text.percent(share), percent=round(100 * share, 2))
        for part, seconds, share in shares
    )


def _decision(decision: Decision) -> DecisionRow:
    return DecisionRow(
        field=text.printable(decision.field),
        value=text.value(decision.value),
        source=decision.source,
        because=text.printable(decision.because),
    )


def _front(plan: Plan) -> tuple[Scored, ...]:
    """The chosen plan is shown among them, also where one that it ties with beats it by less than the model can tell."""
    chosen = plan.chosen
    there = any(s.candidate == chosen.candidate for s in plan.pareto)
    return plan.pareto if there or not plan.pareto else (chosen, *plan.pareto)


def _candidate(rank: int, scored: Scored, *, chosen: Scored | None = None) -> CandidateRow:
    time = scored.estimate.time
    return CandidateRow(
        rank=rank,
        knobs=text.knobs(scored.candidate),
        memory=gib(scored.estimate.memory.device_used_bytes),
        step=duration(time.step_seconds),
        tokens_per_second=f"{time.tokens_per_second:,.0f}",
        total=text.optional_duration(time.total_seconds),
        cost=text.optional_cost(time.cost_usd),
        accelerator=scored.candidate.accelerator,
        chosen=chosen is not None and scored.candidate == chosen.candidate,
    )


def _rows_are_uncounted(plan: Plan) -> bool:
    return any(w.startswith(UNCOUNTED) for w in plan.warnings)
