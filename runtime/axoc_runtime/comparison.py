"""Predicted against measured: what metrics.json keeps as ``comparison``, and the table that a run ends with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

GIB: Final = 1 << 30
SHOWN: Final[dict[str, tuple[str, Callable[[float], str]]]] = {
    "peak_allocated_bytes": ("memory allocated", lambda v: f"{v / GIB:.2f} GiB"),
    "peak_reserved_bytes": ("memory reserved", lambda v: f"{v / GIB:.2f} GiB"),
    "device_used_bytes": ("memory used on the device", lambda v: f"{v / GIB:.2f} GiB"),
    "step_seconds": ("one step", lambda v: f"{v:.3g} s"),
    "tokens_per_second": ("tokens a second", lambda v: f"{v:,.0f}"),
    "mfu": ("model FLOPs utilization", lambda v: f"{v:.1%}"),
    "total_seconds": ("whole run", lambda v: f"{v / 60:,.1f} min"),
    "cost_usd": ("cost", lambda v: f"{v:,.2f} USD"),
}
"""Key of metrics.json and of its ``predicted`` -> name, and how a value is written."""


def comparison(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """A row a quantity: metric, predicted, measured (None where unknown), and difference = measured / predicted - 1."""
    both = ((key, metrics["predicted"].get(key), metrics.get(key)) for key in SHOWN)
    return [_row(key, planned, found) for key, planned, found in both if key != "mfu" or planned is not None]


def whole_run(predicted: dict[str, Any], seconds: float, *, resumed: bool) -> dict[str, float | None]:
    """``total_seconds`` and ``cost_usd`` as measured. The cost is at the plan's price, which is its cost over its time.

    None of a resumed run: what the killed one took is not known.
    """
    if resumed:
        return {"total_seconds": None, "cost_usd": None}
    total, cost = predicted["total_seconds"], predicted["cost_usd"]
    return {"total_seconds": seconds, "cost_usd": seconds * cost / total if total and cost is not None else None}


def notes(metrics: dict[str, Any]) -> list[str]:
    """What must be known to read the table."""
    told = []
    if metrics["batch_fill"] is not None:
        told.append(
            f"Batches were planned {metrics['predicted']['batch_fill']:.0%} as large as those of full rows; this data's, padding "
            f"included, were {metrics['batch_fill']:.0%}."
        )
    if metrics.get("input_wait_share") is not None:
        told.append(f"Waiting for input took {metrics['input_wait_share']:.1%} of the training time.")
    if metrics["device"] == "cpu":
        told.append("On a CPU the three memory rows are the process's resident bytes at their peak.")
    if metrics["total_seconds"] is None:
        told.append("Resumed: the time of the whole run is not known.")
    else:
        told.append("The whole run is measured from the start of the training processes to the saved model.")
    return told


def cells(metrics: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """(quantity, predicted, measured, difference) as text."""
    return [_cells(row) for row in metrics["comparison"]]


def markdown(metrics: dict[str, Any]) -> str:
    """metrics.md."""
    lines = [f"# {metrics['name']}: predicted against measured", ""]
    lines += ["| | predicted | measured | difference |", "|---|---:|---:|---:|"]
    lines += [f"| {' | '.join(row)} |" for row in cells(metrics)]
    lines += [
        "",
        *(f"- {note}" for note in notes(metrics)),
        "",
        "| held-out split | before | after |",
        "|---|---:|---:|",
    ]
    for name in quality(metrics):
        lines.append(f"| {name} | {_plain(metrics, name, 'before')} | {_plain(metrics, name, 'after')} |")
    return "\n".join(lines) + "\n"


def quality(metrics: dict[str, Any]) -> list[str]:
    """Names of what is measured before and after training."""
    return [key.removesuffix("_after") for key in metrics if key.endswith("_after") and metrics[key] is not None]


def _plain(metrics: dict[str, Any], name: str, when: str) -> str:
    value = metrics.get(f"{name}_{when}")
    return "" if value is None else f"{value:.4g}"


def _row(key: str, predicted: float | None, measured: float | None) -> dict[str, Any]:
    both = predicted is not None and measured is not None and predicted > 0
    difference = measured / predicted - 1 if both else None  # type: ignore[operator]
    return {"metric": key, "predicted": predicted, "measured": measured, "difference": difference}


def _cells(row: dict[str, Any]) -> tuple[str, str, str, str]:
    name, write = SHOWN[row["metric"]]
    predicted, measured = ("" if row[k] is None else write(row[k]) for k in ("predicted", "measured"))
    return name, predicted, measured, "" if row["difference"] is None else f"{row['difference']:+.1%}"
