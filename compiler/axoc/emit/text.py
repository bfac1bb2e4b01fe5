"""How values and figures are shown to people: shared by PLAN.md, report.html and the terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from axoc.ir.candidate import Candidate
from axoc.ir.canonical import to_plain
from axoc.ir.estimate import Estimate, TimeEstimate
from axoc.ir.plan import Plan, Rejection
from axoc.units import count, duration, gib

WEB_ADDRESS: Final = re.compile(r"https://[A-Za-z0-9./_#?=&%~+-]+")
STRATEGY_NAMES: Final = {
    "single": "a single process",
    "ddp": "data parallel (DDP)",
    "fsdp": "fully sharded (FSDP2)",
    "zero1": "ZeRO-1 (sharded optimizer states)",
    "zero2": "ZeRO-2 (sharded optimizer states and gradients)",
    "zero3": "ZeRO-3 (sharded weights, gradients and optimizer states)",
}


def value(item: Any) -> str:
    """A decision's value as in the spec: text bare, everything else as JSON. No control characters survive."""
    plain = to_plain(item)
    return printable(plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False))


def printable(item: str) -> str:
    """One line, without control characters: a terminal would act on them."""
    return "".join(c if c.isprintable() else " " for c in item)


def plural(number: int, noun: str) -> str:
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}"


def optional_duration(seconds: float | None) -> str:
    return "not known" if seconds is None else duration(seconds)


def optional_cost(dollars: float | None) -> str:
    return "not known" if dollars is None else f"${dollars:,.2f}"


def percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def knobs(c: Candidate) -> str:
    """What tells one candidate from another, in a few words."""
    parts = [c.strategy, f"dp {c.data_parallel}"]
    parts += [f"tp {c.tensor_parallel}"] if c.tensor_parallel > 1 else []
    parts += [f"micro-batch {c.micro_batch_size} x {c.gradient_accumulation_steps}"]
    parts += [f"checkpointing {c.gradient_checkpointing}"] if c.gradient_checkpointing != "none" else []
    parts += [f"offload {c.offload}"] if c.offload != "none" else []
    parts += [c.quantization] if c.quantization != "none" else []
    parts += ["packed"] if c.packing else []
    parts += [f"kernels {c.kernels}"] if c.kernels != "none" else []
    parts += ["compiled"] if c.compile else []
    return ", ".join(parts)


def padding(time: TimeEstimate) -> str:
    """What it is a share of, and who says how long rows are."""
    if not time.row_lengths:
        return "none counted: how long rows are is not known, and they are taken full"
    return f"{time.padding_share:.1%} of the tokens computed ({time.row_lengths})"


def memory_short(estimate: Estimate) -> str:
    memory = estimate.memory
    return f"{gib(memory.device_used_bytes)} of {gib(memory.capacity_bytes)}"


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The decision in two sentences."""

    decision: str
    outcome: str


def headline(plan: Plan) -> Headline:
    c, estimate = plan.chosen.candidate, plan.chosen.estimate
    where = plural(c.world_size, "process" if c.accelerator == "cpu" else "accelerator")
    decision = (
        f"Train {count(plan.schedule.trainable_parameters)} of {count(plan.schedule.parameters)} parameters with "
        f"{STRATEGY_NAMES[c.strategy]} on {where} ({plan.cluster.label}), {plural(c.global_batch_size, 'sequence')} "
        f"a step: {c.micro_batch_size} x {c.gradient_accumulation_steps} accumulated x {c.data_parallel} data parallel."
    )
    time = estimate.time
    outcome = (
        f"It should use {memory_short(estimate)} of memory on each device and take {duration(time.step_seconds)} a step "
        f"({time.tokens_per_second:,.0f} tokens/s); in all {optional_duration(time.total_seconds)}, "
        f"cost {optional_cost(time.cost_usd)}."
    )
    return Headline(decision=decision, outcome=outcome)


@dataclass(frozen=True, kw_only=True)
class RefusalGroup:
    """The refusals of one rule: how many, and the first as an example."""

    rule: str
    count: int
    example: str
    reason: str
    fix: str
    link: str | None


def refusal_groups(rejections: Iterable[Rejection]) -> list[RefusalGroup]:
    """One a rule, the rule that refused most first."""
    by_rule: dict[str, list[Rejection]] = {}
    for rejection in rejections:
        by_rule.setdefault(rejection.rule, []).append(rejection)
    groups = [_group(rule, found) for rule, found in by_rule.items()]
    return sorted(groups, key=lambda group: (-group.count, group.rule))


def _group(rule: str, found: Sequence[Rejection]) -> RefusalGroup:
    first = found[0]
    link = first.link if first.link and WEB_ADDRESS.fullmatch(first.link) else None
    return RefusalGroup(
        rule=rule,
        count=len(found),
        example=knobs(first.candidate),
        reason=printable(first.reason),
        fix=printable(first.fix),
        link=link,
    )
