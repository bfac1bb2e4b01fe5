"""`axoc explain`: where the bytes of a plan go, phase by phase, and what would break it first.

Everything is read from the plan's JSON, so that a bundle is explained as it was reviewed, wherever it lies.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from axoc.errors import Diagnostic, UserError, reason
from axoc.ir.plan import DISK_BEGINS
from axoc.review.items import DEVICE_ITEMS, DISK_ITEMS, HOST_ITEMS
from axoc.search.adapter_inputs import FIELD
from axoc.units import GIB, MIB, gib

WIDTH: Final = 100
NAME_CELLS: Final = 28
PHASE_CELLS: Final = (8, 12)
"""Of a phase's column: the least and the most."""
SHORT: Final = {
    "forward": "fwd",
    "recompute": "recomp",
    "embedding": "embed",
    "optimizer": "optim.",
    "evaluate": "eval",
    "reference": "ref.",
    "generate": "gen.",
}
"""Names that with the mark of the peak would not fit into the least."""
BAR_CELLS: Final = 64
BOLD, DIM, RED, RESET = "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[0m"

PlanJson = Mapping[str, Any]


def plan_of_bundle(folder: Path) -> dict[str, Any]:
    """The bundle's plan.json. Raises UserError where there is none, or one of an axoc that left the phases out."""
    path = folder / "plan.json"
    fix = "name a spec, or a bundle that axoc plan has written"
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        message = f"this folder holds no plan that can be read: {reason(error)}"
        raise UserError(Diagnostic(message=message, file=str(path), fix=fix)) from None
    if not isinstance(plan, dict) or "memory_by_phase" not in plan:
        message = "this plan does not say what is live in which phase: it was written by an older axoc"
        raise UserError(Diagnostic(message=message, file=str(path), fix="write the bundle again with axoc plan"))
    return plan


def explanation(plan: PlanJson) -> dict[str, Any]:
    """What the text says, for programs; ``items`` in words."""
    memory = plan["estimate"]["memory"]
    shown = ("peak_allocated_bytes", "peak_reserved_bytes", "device_used_bytes", "capacity_bytes", "peak_phase")
    return {
        "schema_version": 1,
        "spec_digest": plan["spec_digest"],
        "plan": plan["plan"],
        "device": {name: memory[name] for name in shown} | {"phases": plan["memory_by_phase"]["device"]},
        "host": {
            "bytes": memory["host_bytes"],
            "peak_phase": memory["host_phase"],
            "phases": plan["memory_by_phase"]["host"],
        },
        "disk": {"bytes": memory["disk_bytes"], "ledger": memory["disk_ledger"], "unknown": _unknown(plan)},
        "margin": plan["margin"],
        "items": {"device": DEVICE_ITEMS, "host": HOST_ITEMS, "disk": DISK_ITEMS},
    }


def as_text(plan: PlanJson, *, color: bool = False) -> str:
    """Tables of at most 100 columns: device by phase, its limit, host by phase, disk, margin, items in words."""
    memory, phases = plan["estimate"]["memory"], plan["memory_by_phase"]
    paint = _Paint(color)
    sections = [
        _heading(plan, paint),
        _tables("Device memory by phase, GiB", _occurring(plan), memory["peak_phase"], paint),
        list(_limit(plan, paint)),
        _tables("Host memory of a node by phase, GiB", phases["host"], memory["host_phase"], paint),
        _disk(plan, paint),
        _margin(plan["margin"], paint),
        _in_words(plan, paint),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"


class _Paint:
    """Escape sequences, or nothing."""

    def __init__(self, color: bool) -> None:
        self.color = color

    def __call__(self, text: str, code: str) -> str:
        return f"{code}{text}{RESET}" if self.color else text


def _heading(plan: PlanJson, paint: _Paint) -> list[str]:
    c = plan["plan"]
    parts = [f"{c['strategy']} on {c['world_size']} x {c['accelerator']}"]
    parts.append(f"micro-batch {c['micro_batch_size']} x {c['gradient_accumulation_steps']}")
    parts.append(f"checkpointing {c['gradient_checkpointing']}, offload {c['offload']}")
    parts.append(f"{c['dtype']} weights, quantization {c['quantization']}, kernels {c['kernels']}")
    parts += ["adapters take their inputs as they come"] if leaves_inputs(plan) else []
    return [paint(line, BOLD) for line in textwrap.wrap("; ".join(parts), WIDTH)]


def leaves_inputs(plan: PlanJson) -> bool:
    """Adapters do not cast what autocast casts back; False in plans that were written before that was decided."""
    return any(d["field"] == FIELD and d["value"] is False for d in plan["decisions"])


def _occurring(plan: PlanJson) -> list[Mapping[str, Any]]:
    """Without the backward phases of blocks that the plan has none of: recomputed ones, or others."""
    left_out = {"none": "backward_recompute", "full": "backward_first"}.get(plan["plan"]["gradient_checkpointing"])
    peak = plan["estimate"]["memory"]["peak_phase"]
    return [p for p in plan["memory_by_phase"]["device"] if p["phase"] == peak or p["phase"] != left_out]


def _tables(title: str, phases: Sequence[Mapping[str, Any]], peak: str, paint: _Paint) -> list[str]:
    """Phases as columns, items as rows; a second table where more phases are than fit."""
    least, most = PHASE_CELLS
    fitting = (WIDTH - NAME_CELLS) // least
    width = min(most, (WIDTH - NAME_CELLS) // max(1, min(fitting, len(phases))))
    lines = [paint(f"{title} (* the peak)", BOLD)]
    for start in range(0, len(phases), fitting):
        lines += _table(phases[start : start + fitting], peak, width, paint)
    return lines


def _table(phases: Sequence[Mapping[str, Any]], peak: str, width: int, paint: _Paint) -> list[str]:
    columns = [{i["item"]: i["bytes"] for i in p["items"]} for p in phases]
    names = [p["phase"] for p in phases]
    rows = list(dict.fromkeys(item for column in columns for item in column))

    def line(name: str, cells: Sequence[str]) -> str:
        shown = [f"{c:>{width}}" for c in cells]
        painted = [paint(s, BOLD) if n == peak else s for s, n in zip(shown, names, strict=True)]
        return f"  {name:<{NAME_CELLS - 2}}" + "".join(painted)

    groups = [n.rpartition("_")[0] for n in names]
    lines = [line("", _once(groups))] if any(groups) else []
    lines.append(line("", [_short(n, width) + ("*" if n == peak else "") for n in names]))
    lines += [line(item, [_figure(c.get(item, 0)) for c in columns]) for item in rows]
    return [*lines, line("all", [_figure(sum(c.values())) for c in columns])]


def _once(words: Sequence[str]) -> list[str]:
    """A group's name over its first column only."""
    return [w if not i or words[i - 1] != w else "" for i, w in enumerate(words)]


def _short(phase: str, width: int) -> str:
    """The phase's own part of its name, with room for the mark and a space."""
    own = phase.rpartition("_")[2]
    return SHORT.get(own, own)[: width - 2]


def _figure(num_bytes: int) -> str:
    """Two decimals; a dot for what is less than half a MiB."""
    return "." if num_bytes < MIB / 2 else f"{num_bytes / GIB:.2f}"


def _limit(plan: PlanJson, paint: _Paint) -> Iterator[str]:
    """A bar: allocated, what the allocator holds beyond it, the driver's own, and what is kept free before the limit."""
    memory = plan["estimate"]["memory"]
    kept = (plan["margin"] or {}).get("kept_free", 0.0) * memory["capacity_bytes"]
    allocated, reserved, used = (
        memory[k] for k in ("peak_allocated_bytes", "peak_reserved_bytes", "device_used_bytes")
    )
    capacity = memory["capacity_bytes"]
    scale = BAR_CELLS / max(capacity, 1)
    cells = [round(x * scale) for x in (allocated, reserved, used, capacity - kept, capacity)]
    parts = zip("#=-·:", [0, *cells], cells, strict=False)
    bar = "".join(mark * max(0, end - begin) for mark, begin, end in parts)
    yield paint("Against the device's limit", BOLD)
    yield f"  [{bar}] {gib(used)} of {gib(capacity)}"
    yield from textwrap.wrap(
        f"# allocated {gib(allocated)}, = held by the allocator {gib(reserved - allocated)}, - the driver's "
        f"{gib(used - reserved)}, · free {gib(max(0.0, capacity - kept - used))}, : kept free {gib(kept)}",
        WIDTH,
        initial_indent="  ",
        subsequent_indent="  ",
    )


def _disk(plan: PlanJson, paint: _Paint) -> list[str]:
    memory = plan["estimate"]["memory"]
    lines = [paint("Disk of a node, GiB", BOLD)]
    lines += [f"  {i['item']:<{NAME_CELLS - 2}}{_figure(i['bytes']):>{PHASE_CELLS[1]}}" for i in memory["disk_ledger"]]
    lines.append(f"  {'all':<{NAME_CELLS - 2}}{_figure(memory['disk_bytes']):>{PHASE_CELLS[1]}}")
    for told in _unknown(plan):
        lines += textwrap.wrap(f"beside it: {told}", WIDTH, initial_indent="  ", subsequent_indent="    ")
    return lines


def _unknown(plan: PlanJson) -> list[str]:
    """What the disk holds beside what is planned."""
    return [w.removeprefix(DISK_BEGINS) for w in plan["warnings"] if w.startswith(DISK_BEGINS)]


def _margin(margin: Mapping[str, Any] | None, paint: _Paint) -> list[str]:
    if margin is None:
        return []
    lines = [
        paint("Margin", BOLD),
        *textwrap.wrap(margin["sentence"], WIDTH, initial_indent="  ", subsequent_indent="  "),
    ]
    for knob in margin["knobs"]:
        until = "as far as it goes" if knob["breaks_at"] is None else f"not {knob['breaks_at']:,}"
        mark = "  < first" if knob["field"] == margin["first_to_break"] else ""
        lines.append(f"  {knob['label']:<16} {knob['value']:>8,} planned, fits to {knob['fits_to']:>8,}, {until}{mark}")
    left = {"host memory": margin["host_free_bytes"], "disk": margin["disk_free_bytes"]}
    known = [f"{gib(free)} of {name}" for name, free in left.items() if free is not None]
    return [*lines, f"  each node has {' and '.join(known)} left"] if known else lines


def _in_words(plan: PlanJson, paint: _Paint) -> list[str]:
    """Of the items that the tables name."""
    there = [i["item"] for phases in plan["memory_by_phase"].values() for p in phases for i in p["items"]]
    there += [i["item"] for i in plan["estimate"]["memory"]["disk_ledger"]]
    words = DEVICE_ITEMS | HOST_ITEMS | DISK_ITEMS
    lines = [paint("What they are", BOLD)]
    for item in dict.fromkeys(there):
        if item in words:
            lines += textwrap.wrap(f"{item}: {words[item]}", WIDTH, initial_indent="  ", subsequent_indent="    ")
    return lines
