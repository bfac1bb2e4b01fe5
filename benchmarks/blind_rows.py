"""Predictions of configurations that nobody has measured yet, written down beforehand, and what they were worth.

    python benchmarks/blind_rows.py CONFIGS.jsonl --predict PREDICTIONS.jsonl [--inventory h200-sxm-141gb] [--without-trace]
    python benchmarks/blind_rows.py CONFIGS.jsonl --predictions PREDICTIONS.jsonl --measured ROWS.jsonl

CONFIGS and ROWS are measure.py's. A prediction once written is not made again, so that committing the file before measuring
makes it blind. Errors are (predicted - measured) / measured. Both are told how measure.py loads quantized models, and the closed
form's replay what the device has; ``planned_share`` is what a plan would use of the device, without either: what a verdict is by.
Rows without a prediction are left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from axoc.cost.replay.conditions import PLANNED
from closed_form import measured_bytes, measured_conditions, model_of, predict, read_rows, scenario_of
from memory_accuracy import MEASURES, knobs
from memory_verdicts import ALONE, DECLARED, memory_bytes, used_share

VERDICT: Final = ("used", "planned", "verdict")
TRACED: Final = {"allocated": "peak_allocated_bytes", "reserved": "peak_reserved_bytes"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", type=Path)
    parser.add_argument("--predict", type=Path, help="write what is not there yet")
    parser.add_argument("--inventory", default=ALONE, help="whose accelerator's bytes the device has")
    parser.add_argument("--without-trace", action="store_true", help="which takes a minute or more a configuration")
    parser.add_argument("--predictions", type=Path)
    parser.add_argument("--measured", type=Path)
    options = parser.parse_args()
    if options.predict:
        made = {"closed_form": partial(closed_form, inventory=options.inventory)}
        made |= {} if options.without_trace else {"trace": trace}
        write_predictions(read_rows(options.configs), options.predict, made)
    if options.measured:
        found = {row["id"]: row for row in read_rows(options.predictions)}
        print("\n".join(report(read_rows(options.measured), found)))
    return 0


def write_predictions(
    rows: list[dict[str, Any]], path: Path, made: dict[str, Callable[[dict[str, Any]], dict[str, Any]]]
) -> None:
    """``made``: by whom, what they predict of a row."""
    there = {row["id"] for row in read_rows(path)} if path.exists() else set()
    with path.open("a", encoding="utf-8") as file:
        for row in rows:
            if row["id"] not in there:
                file.write(json.dumps({"id": row["id"], **{who: of(row) for who, of in made.items()}}) + "\n")
                file.flush()


def closed_form(row: dict[str, Any], inventory: str) -> dict[str, float]:
    device_bytes = memory_bytes(inventory)
    conditions = measured_conditions(row, scenario_of(row, inventory), device_bytes)
    found, planned = predict(row, inventory, conditions), predict(row, inventory, PLANNED)
    share = round(planned.bytes("device_used") / device_bytes, 4)
    return {**{name: round(found.bytes(name)) for name, _ in MEASURES}, "planned_share": share}


def trace(row: dict[str, Any]) -> dict[str, int]:
    """As `axoc verify` runs it, but for how quantized models are loaded. Compiled blocks are traced as they are."""
    from measured_loading import as_measured
    from trace_accuracy import config_of, job_of, traced

    config = config_of(row["model"])
    asked = {"input_gradients": row["method"] != "full" and bool(row["gc"])}
    loading = partial(as_measured, config) if row["dtype"] == "nf4" else None
    found = traced(job_of(row, config), config, **asked, loading=loading)
    return {name: int(found[key]) for name, key in TRACED.items()}


def report(rows: list[dict[str, Any]], predictions: dict[str, dict[str, Any]]) -> list[str]:
    columns = [(who, name) for who in ("closed_form", "trace") for name, _ in MEASURES]
    columns = [(who, name) for who, name in columns if who == "closed_form" or name in TRACED]
    head = ["row", "family", "configuration", *(f"{w.replace('_', ' ')}, {n}" for w, n in columns), *VERDICT]
    lines = [f"| {' | '.join(head)} |", "|---|---|---|" + "--:|" * (len(columns) + 2) + "---|"]
    errors: dict[tuple[str, str], list[float]] = {column: [] for column in columns}
    for row in (r for r in rows if r["id"] in predictions):
        shown = []
        for who, name in columns:
            if who not in predictions[row["id"]]:
                shown.append("")
                continue
            error = predictions[row["id"]][who][name] / measured_bytes(row, dict(MEASURES)[name]) - 1
            errors[who, name].append(abs(error))
            shown.append(f"{error:+.2%}")
        shown += verdict(row, predictions[row["id"]]["closed_form"].get("planned_share"))
        lines.append(f"| {row['id']} | {model_of(row).family} | {knobs(row)} | " + " | ".join(shown) + " |")
    for name, of in (("mean", statistics.mean), ("largest", max)):
        shown = [f"{of(errors[column]):.2%}" if errors[column] else "" for column in columns]
        lines.append(f"| {name} | | | " + " | ".join([*shown, "", "", ""]) + " |")
    return lines


def verdict(row: dict[str, Any], planned: float | None) -> list[str]:
    """Shares of the device, and what the planner would have said. The first predictions were written without."""
    said = "" if planned is None else "fits" if planned <= DECLARED else "refused"
    return [f"{used_share(row):.1%}", "" if planned is None else f"{planned:.1%}", said]


if __name__ == "__main__":
    sys.exit(main())
