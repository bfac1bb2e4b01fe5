"""Predictions of configurations that nobody has measured yet, written down beforehand, and what they were worth.

    python benchmarks/blind_rows.py CONFIGS.jsonl --predict PREDICTIONS.jsonl
    python benchmarks/blind_rows.py CONFIGS.jsonl --predictions PREDICTIONS.jsonl --measured ROWS.jsonl

CONFIGS and ROWS are measure.py's. A prediction once written is not made again, so that committing the file before measuring
makes it blind. Errors are (predicted - measured) / measured.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any, Final

from closed_form import model_of, predict, read_rows
from memory_accuracy import MEASURES, knobs

TRACED: Final = {"allocated": "peak_allocated_bytes", "reserved": "peak_reserved_bytes"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", type=Path)
    parser.add_argument("--predict", type=Path, help="write what is not there yet")
    parser.add_argument("--predictions", type=Path)
    parser.add_argument("--measured", type=Path)
    options = parser.parse_args()
    if options.predict:
        write_predictions(read_rows(options.configs), options.predict)
    if options.measured:
        found = {row["id"]: row for row in read_rows(options.predictions)}
        print("\n".join(report(read_rows(options.measured), found)))
    return 0


def write_predictions(rows: list[dict[str, Any]], path: Path) -> None:
    there = {row["id"] for row in read_rows(path)} if path.exists() else set()
    with path.open("a", encoding="utf-8") as file:
        for row in rows:
            if row["id"] not in there:
                file.write(json.dumps({"id": row["id"], **closed_form(row), "trace": trace(row)}) + "\n")
                file.flush()


def closed_form(row: dict[str, Any]) -> dict[str, Any]:
    found = predict(row)
    return {"closed_form": {name: round(found.bytes(name)) for name, _ in MEASURES}}


def trace(row: dict[str, Any]) -> dict[str, int]:
    """As `axoc verify` runs it. Compiled blocks are traced as they are."""
    from axoc_runtime.trace.__main__ import traced
    from trace_accuracy import config_of, job_of

    config = config_of(row["model"])
    found = traced(job_of(row, config), config, input_gradients=row["method"] != "full" and bool(row["gc"]))
    return {name: int(found[key]) for name, key in TRACED.items()}


def report(rows: list[dict[str, Any]], predictions: dict[str, dict[str, Any]]) -> list[str]:
    columns = [(who, name) for who in ("closed_form", "trace") for name, _ in MEASURES]
    columns = [(who, name) for who, name in columns if who == "closed_form" or name in TRACED]
    lines = ["| row | family | configuration | " + " | ".join(f"{w.replace('_', ' ')}, {n}" for w, n in columns) + " |"]
    lines.append("|---|---|---|" + "--:|" * len(columns))
    errors: dict[tuple[str, str], list[float]] = {column: [] for column in columns}
    for row in rows:
        shown = []
        for who, name in columns:
            error = predictions[row["id"]][who][name] / row[dict(MEASURES)[name]] - 1
            errors[who, name].append(abs(error))
            shown.append(f"{error:+.2%}")
        lines.append(f"| {row['id']} | {model_of(row).family} | {knobs(row)} | " + " | ".join(shown) + " |")
    for name, of in (("mean", statistics.mean), ("largest", max)):
        lines.append(f"| {name} | | | " + " | ".join(f"{of(errors[column]):.2%}" for column in columns) + " |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
