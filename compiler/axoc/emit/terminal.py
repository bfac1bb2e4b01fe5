"""The plan as plain text for a terminal. No rich here: a dry run must start fast."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Final

from axoc.emit import text
from axoc.emit.view import Bar, PlanView, plan_view
from axoc.ir.plan import NoPlan, Plan, Rejection

BOLD, DIM, RED, RESET = "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[0m"
BAR_CELLS: Final = 30
WIDTH: Final = 96
DECISIONS_SHOWN: Final = 10
REFUSALS_SHOWN: Final = 5
PARETO_SHOWN: Final = 5


def render_plan(plan: Plan, *, color: bool = False) -> str:
    """About 60 lines: the decision, why, the memory ledger, time and cost, runners-up, refusals."""
    view = plan_view(plan)
    lines = [
        *_wrapped(view.headline.decision, bold=color),
        *_wrapped(view.headline.outcome),
        *_section("Plan", _pairs(view.settings), color),
        *_section("Why", _why(view), color),
        *_section(f"Memory at the peak ({view.peak_phase})", _memory(view), color),
        *_section("Time and cost", [_in_one_line(view.time), *_whole_run(view)], color),
        *_section("Not beaten in time, money and device memory at once (* the plan)", _pareto(view), color),
        *_section("Runners-up", _runners_up(view), color),
        *_section(f"Refused: {view.refusals_count:,}", _refusals(view.refusals), color),
        *_section("Warnings", [line for w in view.warnings for line in _wrapped(w, "  ")], color),
    ]
    return "\n".join(lines) + "\n"


def render_no_plan(no_plan: NoPlan, *, color: bool = False) -> str:
    """The nearest candidates with what each lacks, the smallest change that fits, and why the rest was refused."""
    title = f"No plan fits for {text.printable(no_plan.request.name)}."
    lines = [_paint(title, BOLD + RED, color)]
    lines += _section("Nearest", [line for r in no_plan.nearest for line in _near(r)], color)
    if no_plan.smallest_change is not None:
        lines += _section("Smallest change that fits", _wrapped(text.printable(no_plan.smallest_change), "  "), color)
    else:
        ways = [line for way in _other_ways(no_plan) for line in _hanging(text.printable(way))]
        lines += _section("No single change that was tried fits; what else there is", ways, color)
    lines += _section(
        f"Refused: {len(no_plan.rejections):,}", _refusals(text.refusal_groups(no_plan.rejections)), color
    )
    warned = [line for warning in no_plan.warnings for line in _wrapped(text.printable(warning), "  ")]
    lines += _section("Warnings", warned, color)
    return "\n".join(lines) + "\n"


def _other_ways(no_plan: NoPlan) -> list[str]:
    """Where no single change helps: what the rules say, or, where memory is what lacks, the obvious."""
    fixes = dict.fromkeys(r.fix for r in no_plan.rejections if r.estimate is None)
    return list(fixes) or ["more or larger accelerators, or a smaller model"]


def _near(rejection: Rejection) -> list[str]:
    return _wrapped(f"{text.knobs(rejection.candidate)}: {text.printable(rejection.reason)}", "  ")


def _section(title: str, body: Sequence[str], color: bool) -> list[str]:
    return ["", _paint(title, BOLD, color), *body] if body else []


def _pairs(rows: Iterable[tuple[str, str]]) -> list[str]:
    return [_cut(f"  {name:<14} {value}") for name, value in rows]


def _why(view: PlanView) -> list[str]:
    """Values that were searched for or ruled, before those that the user or a default gave."""
    rows = sorted(view.decisions, key=lambda d: d.source in ("user", "default"))
    lines = [line for d in rows[:DECISIONS_SHOWN] for line in _hanging(f"{d.field} = {d.value}: {d.because}")]
    left = len(rows) - DECISIONS_SHOWN
    return [*lines, f"  and {left} more: --format json shows all"] if left > 0 else lines


def _memory(view: PlanView) -> list[str]:
    lines = [_ledger_line(bar) for bar in view.ledger if bar.percent > 0]
    figures = dict(view.memory)
    used, limit = figures["used on the device"], figures["limit"]
    lines.append(
        f"  allocated {figures['peak allocated']}, reserved {figures['peak reserved']}, used on the device {used}"
    )
    lines.append(f"  limit {limit}, margin {figures['margin']}")
    lines += _wrapped(view.margin, "  ")
    lines.append(f"  each node: host {_with_largest(view.host, 'host memory a node', figures)}")
    lines.append(f"             disk {_with_largest(view.disk, 'disk a node', figures)}")
    return lines


def _with_largest(bars: Sequence[Bar], name: str, figures: dict[str, str]) -> str:
    """The sum, and what takes most of it."""
    if not bars:
        return figures[name]
    largest = max(bars, key=lambda bar: bar.percent)
    return f"{figures[name]}, most of it {largest.item} ({largest.size})"


def _ledger_line(bar: Bar) -> str:
    cells = round(BAR_CELLS * bar.percent / 100)
    return f"  {bar.item:<24} {bar.size:>10} {bar.share:>7}  {'#' * cells}"


def _in_one_line(rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join(_wrapped(", ".join(f"{name} {value}" for name, value in rows), "  "))


def _whole_run(view: PlanView) -> list[str]:
    """Where the time goes, and what an hour is priced at."""
    parts = ", ".join(f"{row.item} {row.time}" for row in view.run)
    prices = (f"{kind} {price} an accelerator-hour ({source})" for kind, price, source in view.prices)
    return [line for p in (f"whole run: {parts}" if parts else "", *prices) if p for line in _hanging(p)]


def _pareto(view: PlanView) -> list[str]:
    """Nothing where the plan is the only one; the plan itself is always among those shown."""
    if len(view.pareto) < 2:
        return []
    shown = view.pareto[:PARETO_SHOWN]
    shown += tuple(row for row in view.pareto[PARETO_SHOWN:] if row.chosen)
    lines = [
        _cut(f"{'*' if r.chosen else ' '} {r.step:>10}  {r.cost:>10}  {r.memory:>9}  {r.accelerator}: {r.knobs}")
        for r in shown
    ]
    left = len(view.pareto) - len(shown)
    return [*lines, f"  and {left} more: --format json shows all"] if left else lines


def _runners_up(view: PlanView) -> list[str]:
    return [_cut(f"  {row.step:>10}  {row.cost:>10}  {row.memory:>9}  {row.knobs}") for row in view.runners_up]


def _refusals(groups: Sequence[text.RefusalGroup]) -> list[str]:
    lines = [line for g in groups[:REFUSALS_SHOWN] for line in _hanging(f"{g.rule}: {g.reason}")]
    left = len(groups) - REFUSALS_SHOWN
    return [*lines, f"  and {text.plural(left, 'more rule')}"] if left > 0 else lines


def _wrapped(paragraph: str, indent: str = "", *, bold: bool = False) -> list[str]:
    lines = textwrap.wrap(paragraph, WIDTH, initial_indent=indent, subsequent_indent=indent)
    return [_paint(line, BOLD, bold) for line in lines]


def _hanging(paragraph: str) -> list[str]:
    return textwrap.wrap(paragraph, WIDTH, initial_indent="  ", subsequent_indent="    ")


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else line[: WIDTH - 1].rstrip() + "…"


def _paint(line: str, code: str, color: bool) -> str:
    return f"{code}{line}{RESET}" if color else line
