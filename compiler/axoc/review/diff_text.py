"""A difference for people: in a terminal, as Markdown for a pull request's comment, and as JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, Final

from axoc.emit.text import printable
from axoc.review.diff import Change, Difference, Figure
from axoc.review.sides import Side
from axoc.units import GIB, duration, gib

WIDTH: Final = 100
NAMES: Final = {
    "single": "one process",
    "ddp": "DDP",
    "fsdp": "FSDP2",
    "zero1": "ZeRO-1",
    "zero2": "ZeRO-2",
    "zero3": "ZeRO-3",
}
FIRST: Final = (
    "distributed.type",
    "distributed.offload",
    "distributed.model_parallel_size",
    "training.optimizer",
    "model.quantization",
    "training.gradient_checkpointing",
    "checkpointed_layers",
    "training.micro_batch_size",
)
"""Choices in the order in which one stands for all of them."""
SHORT: Final = 24
"""Characters of a digest or another long value that are shown."""
BOLD, DIM, RED, GREEN, RESET = "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[0m"
GOOD: Final = {"memory used on a device": -1, "host memory of a node": -1, "disk of a node": -1, "one step": -1,
               "tokens a second": 1, "model FLOPs utilization": 1, "whole run": -1, "cost": -1, "cost at spot prices": -1}  # fmt: skip
"""Which way a figure improves."""


def headline(found: Difference) -> str:
    """E.g. ``ZeRO-2 -> ZeRO-3, because dataset.max_seq_length went from 4096 to 8192; peak +11.2 GiB (71.0 of 79.6 GiB), ...``"""
    if found.empty:
        return "No difference."
    parts = [_turn(found), *_effects(found)]
    return "; ".join(part for part in parts if part) + "."


def _turn(found: Difference) -> str:
    """What the planner does otherwise, and the cause where only one thing was changed."""
    chosen = {c.field: c for c in found.choices}
    first = next((chosen[field] for field in FIRST if field in chosen), next(iter(found.choices), None))
    what = "the same choices" if first is None else f"{_name(first.old)} -> {_name(first.new)}"
    if first is not None and first.field != "distributed.type":
        what = f"{first.field} {what}"
    more = len(found.choices) - 1
    what += f" and {more} more" if more > 0 else ""
    causes = found.inputs
    if len(causes) == 1 and found.causes_known:
        cause = causes[0]
        return f"{what}, because {cause.field} went from {shown(cause.old)} to {shown(cause.new)}"
    return what + (f", after {len(causes)} changes" if causes else "")


def _effects(found: Difference) -> Iterable[str]:
    by_name = {f.name: f for f in found.figures}
    used, limit = by_name["memory used on a device"], by_name["memory limit of a device"]
    if used.old != used.new and None not in (used.old, used.new, limit.new):
        yield f"peak {_moved(used)} ({used.new / GIB:.1f} of {gib(limit.new or 0)})"  # type: ignore[operator]
    speed, cost = by_name["tokens a second"], by_name["cost"]
    if speed.old and speed.new and speed.old != speed.new:
        yield f"{speed.new / speed.old - 1:+.0%} tokens/s"
    if cost.old is not None and cost.new is not None and round(cost.old, 2) != round(cost.new, 2):
        yield f"{'+' if cost.new >= cost.old else '-'}${abs(cost.new - cost.old):,.2f}"


# --- text


def as_text(found: Difference, old: Side, new: Side, *, color: bool = False) -> str:
    paint = _paint if color else lambda text, _: text
    lines = [paint(f"{old.label} -> {new.label}", DIM), *textwrap.wrap(headline(found), WIDTH)]
    for title, rows in sections(found):
        lines += ["", paint(title, BOLD), *(line for row in rows for line in _wrapped(row))]
    moved = [f for f in found.figures if f.old != f.new]
    if moved:
        lines += ["", paint("What it comes to", BOLD), *(_row(f, paint) for f in moved)]
    return "\n".join([*lines, ""])


def sections(found: Difference) -> Iterable[tuple[str, list[str]]]:
    """Title and lines of each group that has any, causes before consequences."""
    groups: list[tuple[str, list[str]]] = [
        ("Changed", [_change(c) for c in found.inputs]),
        ("What follows", [_change(c) for c in found.choices]),
        ("It does not train the same", [_change(c) for c in found.training]),
        ("Not resumable", [found.resumes] if found.resumes else []),
        ("New warnings", list(found.warnings_new)),
        ("Warnings gone", list(found.warnings_gone)),
        ("Configuration", [_change(c) for c in found.configs]),
        ("Packages", [_change(c) for c in found.packages]),
        ("Files", [f"{c.field}: {_file(c)}" for c in found.files]),
    ]
    return [(title, rows) for title, rows in groups if rows]


def _change(change: Change) -> str:
    text = f"{change.field}: {shown(change.old)} -> {shown(change.new)}"
    return f"{text} ({change.because})" if change.because else text


def _file(change: Change) -> str:
    return "added" if change.old == "(absent)" else "removed" if change.new == "(absent)" else "changed"


def _wrapped(row: str) -> list[str]:
    return textwrap.wrap(printable(row), WIDTH, initial_indent="  ", subsequent_indent="    ")


def _row(figure: Figure, paint: Any) -> str:
    old, new = (written(v, figure.unit) for v in (figure.old, figure.new))
    line = f"  {figure.name:<26}{old:>14} -> {new:<14}{_moved(figure):>12}"
    better = GOOD.get(figure.name, 0)
    if better and figure.old is not None and figure.new is not None:
        line = str(paint(line, GREEN if (figure.new - figure.old) * better > 0 else RED))
    return line


def written(value: float | None, unit: str) -> str:
    if value is None:
        return "not known"
    if unit in ("bytes", "seconds"):
        return gib(value) if unit == "bytes" else duration(value)
    return {"usd": f"${value:,.2f}", "share": f"{value:.1%}"}.get(unit, f"{value:,.0f}")


def _moved(figure: Figure) -> str:
    """The difference: bytes as bytes, money as money, all else as a share."""
    if figure.old is None or figure.new is None:
        return ""
    change = figure.new - figure.old
    if figure.unit == "bytes":
        return f"{'+' if change >= 0 else '-'}{gib(abs(change))}"
    if figure.unit == "usd":
        return f"{'+' if change >= 0 else '-'}${abs(change):,.2f}"
    return f"{change / figure.old:+.1%}" if figure.old else ""


def shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = printable(text)
    digest = text.startswith("sha256:") or (len(text) == 64 and text.isalnum())
    return text[:SHORT] + "..." if digest else text


def _name(value: Any) -> str:
    return NAMES.get(value, shown(value)) if isinstance(value, str) else shown(value)


def _paint(text: str, code: str) -> str:
    return f"{code}{text}{RESET}"


# --- Markdown and JSON


def as_markdown(found: Difference, old: Side, new: Side) -> str:
    """A comment for a pull request: the sentence, a table of figures, and the rest folded away where it is long."""
    lines = [f"### axoc: {_escaped(headline(found))}", ""]
    moved = [f for f in found.figures if f.old != f.new]
    if moved:
        lines += ["| | before | after | change |", "|---|---:|---:|---:|"]
        lines += [f"| {f.name} | {written(f.old, f.unit)} | {written(f.new, f.unit)} | {_moved(f)} |" for f in moved]
        lines.append("")
    for title, rows in sections(found):
        shown_rows = [f"- {_escaped(row)}" for row in rows]
        folded = len(rows) > 8
        lines += [f"<details><summary>{title} ({len(rows)})</summary>", ""] if folded else [f"**{title}**", ""]
        lines += [*shown_rows, "", *(["</details>", ""] if folded else [])]
    lines.append(f"<sub>{_escaped(old.label)} → {_escaped(new.label)}</sub>")
    return "\n".join([*lines, ""])


def _escaped(text: str) -> str:
    """Markdown and HTML of a spec's values is shown, not acted on; mentions and references neither."""
    text = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for mark in "\\`*_[]|#@":
        text = text.replace(mark, f"\\{mark}" if mark != "@" else "&#64;")
    return text


def as_dict(found: Difference, old: Side, new: Side) -> dict[str, Any]:
    plain = asdict(found)
    return {
        "schema_version": 1,
        "old": old.label,
        "new": new.label,
        "differs": not found.empty,
        "headline": headline(found),
        **{key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()},
    }
