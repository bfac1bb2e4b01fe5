"""What to take: the smallest that surely loses no more than allowed, to serve and to train an adapter beside."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from axoc_runtime.quantize import compare
from axoc_runtime.quantize.rows import Row

ALIKE: Final = 1.1
"""Sizes within this factor count as one: then the better perplexity decides."""


@dataclass(frozen=True, kw_only=True)
class Advice:
    serve: Row | None
    """None: nothing that was measured loses little enough."""
    train: Row | None
    serve_why: str
    train_why: str


def advise(rows: Sequence[Row], most_lost: float) -> Advice:
    """``most_lost``: of the perplexity, e.g. 0.05."""
    trainable = [r for r in rows if _trainable(r)]
    serve, train = _best(rows, most_lost, _size), _best(trainable, most_lost, _memory)
    return Advice(
        serve=serve,
        train=train,
        serve_why=_why(rows, serve, most_lost, "the best perplexity among the smallest"),
        train_why=_why(trainable, train, most_lost, "the best perplexity among those with the least memory"),
    )


def _trainable(row: Row) -> bool:
    """Where it was measured: the planner refuses int8 on a CPU (its rule int8-on-cpu)."""
    as_ = row.method.trained_as
    return as_ is not None and (as_ != "int8" or row.on_gpu)


def _size(row: Row) -> int:
    return row.size_bytes


def _memory(row: Row) -> int:
    return row.peak_bytes


def _best(rows: Sequence[Row], most_lost: float, cost: Callable[[Row], int]) -> Row | None:
    kept = [r for r in rows if r.change is not None and r.change.high <= most_lost]
    if not kept:
        return None
    limit = ALIKE * min(cost(r) for r in kept)
    return min((r for r in kept if cost(r) <= limit), key=lambda r: (r.change.value if r.change else 0.0, cost(r)))


def _why(rows: Sequence[Row], found: Row | None, most_lost: float, best: str) -> str:
    measured = [r for r in rows if r.change is not None]
    if not measured:
        return "no method for it was measured"
    if found is None or found.change is None or found.measured is None:
        return f"none of {len(measured)} measured surely loses at most {most_lost:.0%} of the perplexity"
    tokens = sum(found.measured["read"]["counts"])
    windows = len(found.measured["read"]["counts"])
    told = (
        f"{found.method.name}: {best} (within 10%) of those of {len(measured)} measured that surely lose at most {most_lost:.0%}: "
        f"{shown(found)}, on {tokens:,} tokens in {windows} windows"
    )
    others = [r for r in measured if r is not found and r.change is not None and r.measured is not None]
    alike = [r for r in others if r.measured and not compare.apart(found.measured["read"], [r.measured["read"]])]
    return f"{told}; not to be told apart by perplexity: {', '.join(r.method.name for r in alike)}" if alike else told


def shown(row: Row) -> str:
    c = row.change
    return "" if c is None else f"perplexity {c.value:+.2%} (95%: {c.low:+.2%} to {c.high:+.2%})"


def spec_text(model: str, advice: Advice) -> str:
    """YAML for a spec: the model, what to train beside, and what to export. Values are quoted as data."""
    lines = [f"# To train an adapter: {_comment(advice.train_why)}", f"model: {{id: {_quoted(model)}{_train(advice)}}}"]
    lines += ["adapter: lora"] if advice.train else []
    lines += [f"# To serve: {_comment(advice.serve_why)}"]
    formats = _quoted(advice.serve.method.written) if advice.serve else '"vllm"'
    return "\n".join([*lines, f"export: {{formats: [{formats}], quantization: none}}"]) + "\n"


def _train(advice: Advice) -> str:
    return f", quantization: {advice.train.method.trained_as}" if advice.train else ""


def _quoted(value: Any) -> str:
    return json.dumps(str(value))


def _comment(text: str) -> str:
    return " ".join(text.split())
