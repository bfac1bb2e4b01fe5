"""What a finished run adds to the report: predicted against measured, and the loss. Rows of ready text and geometry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from axoc.emit.charts import Chart, Line, Mark, polyline, x_scale, y_scale
from axoc.emit.text import printable
from axoc.units import duration, gib

WRITTEN: Final[Mapping[str, tuple[str, Callable[[float], str]]]] = {
    "peak_allocated_bytes": ("memory allocated", gib),
    "peak_reserved_bytes": ("memory reserved", gib),
    "device_used_bytes": ("memory used on the device", gib),
    "step_seconds": ("one step", duration),
    "tokens_per_second": ("tokens a second", lambda v: f"{v:,.0f}"),
    "mfu": ("model FLOPs utilization", lambda v: f"{v:.1%}"),
    "total_seconds": ("whole run", duration),
    "cost_usd": ("cost", lambda v: f"${v:,.2f}"),
}
"""Key of metrics.json -> name, and how a value is written."""
MOST_POINTS: Final = 400
"""Of a line: more than the drawing has columns says nothing."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """The files of an output folder, as they were read."""

    metrics: Mapping[str, Any]
    """metrics.json"""
    lines: Sequence[Mapping[str, Any]]
    """metrics.jsonl"""


@dataclass(frozen=True, kw_only=True)
class Compared:
    name: str
    predicted: str
    measured: str
    difference: str
    percent: float
    """Of a bar, 0 to 50: how large the difference is; half of the chart stands for twofold."""
    above: bool


@dataclass(frozen=True, kw_only=True)
class RunView:
    compared: tuple[Compared, ...]
    quality: tuple[tuple[str, str, str], ...]
    """Figure on the held-out rows, before, after."""
    loss: Chart | None
    facts: str


def run_view(run: Run) -> RunView:
    metrics = run.metrics
    names = [k.removesuffix("_after") for k in metrics if k.endswith("_after") and metrics[k] is not None]
    return RunView(
        compared=tuple(_compared(row) for row in metrics["comparison"] if row["metric"] in WRITTEN),
        quality=tuple((n, _figure(metrics.get(f"{n}_before")), _figure(metrics[f"{n}_after"])) for n in names),
        loss=_loss(run.lines),
        facts=printable(
            f"{metrics['steps']:,} steps of {metrics['strategy']} on {metrics['world_size']} x {metrics['accelerator']}"
        ),
    )


def _compared(row: Mapping[str, Any]) -> Compared:
    name, write = WRITTEN[row["metric"]]
    difference = row["difference"]
    return Compared(
        name=name,
        predicted="" if row["predicted"] is None else write(row["predicted"]),
        measured="" if row["measured"] is None else write(row["measured"]),
        difference="" if difference is None else f"{difference:+.1%}",
        percent=0.0 if difference is None else round(50 * min(1.0, abs(difference)), 2),
        above=difference is not None and difference > 0,
    )


def _figure(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, (int, float)) else printable(str(value))


def _loss(lines: Sequence[Mapping[str, Any]]) -> Chart | None:
    """Training and held-out loss over steps; None where fewer than two were logged."""
    train, held = _series(lines, "loss"), _series(lines, "eval_loss")
    points = [*train, *held]
    if len(points) < 2:
        return None
    x, y = x_scale([p[0] for p in points]), y_scale([p[1] for p in points], from_zero=False)
    drawn = [("training", "curve", train), ("held out", "second", held)]
    ends = "; ".join(f"{n} from {s[0][1]:.4g} to {s[-1][1]:.4g}" for n, _, s in drawn if s)
    return Chart(
        id="loss",
        title="Loss over the run",
        summary=f"Loss by step: {ends}.",
        x_label="step",
        y_label="loss",
        x_ticks=x.ticks(lambda v: f"{v:,.0f}"),
        y_ticks=y.ticks(lambda v: f"{v:g}" if abs(v) < 1e4 else f"{v:.1e}"),
        lines=tuple(Line(points=polyline(_thinned(s), x, y), kind=k) for _, k, s in drawn if len(s) > 1),
        marks=tuple(Mark(x=x.at(s[0][0]), y=y.at(s[0][1]), kind=k, label=n) for n, k, s in drawn if len(s) == 1),
        legend=tuple((k, n) for n, k, s in drawn if s),
        header=("step", "loss", "of"),
        rows=tuple((f"{a:,.0f}", f"{b:.4g}", n) for n, _, s in drawn for a, b in _thinned(s, 20)),
    )


def _series(lines: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    return [(line["step"], line[name]) for line in lines if isinstance(line.get(name), (int, float))]


def _thinned(points: list[tuple[float, float]], most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """Evenly, the first and the last among them."""
    if len(points) <= most:
        return points
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]
