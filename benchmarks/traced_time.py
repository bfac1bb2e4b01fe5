"""What the real modelling code launches in a step of each measured row, by the trace: for time_accuracy.py, which prices it.

    python benchmarks/traced_time.py record [ROWS.jsonl…] [--only a01,a02] [--seconds 280]
    python benchmarks/traced_time.py compare [ROWS.jsonl…] [--only a01,a02]

``record`` needs torch, and no GPU: it traces the rows that were timed and are not in rows/traced_launches.jsonl.xz yet, at two
shallow depths where there are as many blocks, as `axoc verify` does for deep models, and adds them; a file of one's own is named by --out.
``compare`` shows the parts of a step by the closed form and by the trace. Rows: those of time_accuracy.py unless they are named.
"""

from __future__ import annotations

import argparse
import json
import lzma
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve().parent
LAUNCHES: Final = HERE / "rows/traced_launches.jsonl.xz"
INVENTORY: Final = "h100-sxm-80gb"
SHOWN_SECONDS: Final = 1e-5


def main() -> int:
    from time_accuracy import BUILT, JUDGING

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("record", "compare"))
    parser.add_argument("rows", type=Path, nargs="*", default=[*BUILT.values(), *JUDGING.values()])
    parser.add_argument("--out", type=Path, default=LAUNCHES)
    parser.add_argument("--only")
    parser.add_argument("--seconds", type=float, default=280.0, help="start nothing after so long")
    options = parser.parse_args()
    lines = (line for path in options.rows for line in path.read_text().splitlines() if line.strip())
    rows = [row for row in map(json.loads, lines) if row.get("step_median_s")]
    chosen = [row for row in rows if options.only is None or row["id"] in options.only.split(",")]
    if options.command == "record":
        record(options.out, chosen, options.seconds)
    else:
        compare(options.out, chosen)
    return 0


def record(out: Path, rows: Iterable[dict[str, Any]], seconds: float) -> None:
    began, found = time.monotonic(), recorded(out)
    for row in rows:
        if row["id"] not in found and time.monotonic() - began < seconds:
            found[row["id"]] = launched(row)
            print(row["id"], round(time.monotonic() - began), flush=True)
    lines = (json.dumps({"id": id_} | what, separators=(",", ":")) + "\n" for id_, what in sorted(found.items()))
    out.write_bytes(lzma.compress("".join(lines).encode(), preset=9))


def recorded(path: Path = LAUNCHES) -> dict[str, Any]:
    """{"runs": [[depth, launches], …]} or {"error": why} of each row, by id."""
    if not path.exists():
        return {}
    rows = map(json.loads, lzma.decompress(path.read_bytes()).decode().splitlines())
    return {row.pop("id"): row for row in rows}


def launched(row: dict[str, Any]) -> dict[str, Any]:
    from axoc_runtime.errors import RuntimeFailure
    from axoc_runtime.trace.__main__ import heavy_imports, uncollected
    from trace_accuracy import config_of, job_of

    heavy_imports()
    from axoc_runtime.trace.extrapolate import trace
    from axoc_runtime.trace.step import imported

    config = config_of(row["model"])
    gradients = row["method"] != "full" and bool(row["gc"])
    try:
        job = job_of(row, config)
        with uncollected():
            imported(job)
        found = trace(job, config, input_gradients=gradients, full_run_seconds=0.0)
    except RuntimeFailure as failure:
        return {"error": str(failure)}
    return {"runs": [[depth, run] for depth, run in zip(found.layers_run, found.launches, strict=True)]}


def compare(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Parts in milliseconds, closed form | trace."""
    import numpy as np
    from axoc.cost.time import step_time
    from axoc.cost.traced import traced_time
    from closed_form import columns_of, scenario_of

    found, errors = recorded(path), []
    for row in rows:
        runs = found.get(row["id"], {}).get("runs")
        if not runs:
            continue
        scenario = scenario_of(row, INVENTORY)
        columns = columns_of(row, scenario.model)
        both = step_time(scenario, columns), traced_time(scenario, columns, runs)
        errors.append([float(t.step_seconds[0]) / row["step_median_s"] - 1 for t in both])
        parts = {name: [float(np.ravel(t.breakdown[name])[0]) for t in both] for name in both[0].breakdown}
        shown = ", ".join(f"{n} {1e3 * a:.1f} | {1e3 * b:.1f}" for n, (a, b) in parts.items() if a + b > SHOWN_SECONDS)
        closed, traced = errors[-1]
        print(f"{row['id']} {row['model']} {row['method']}: closed form {closed:+.1%}, trace {traced:+.1%}: {shown}")
    for name, sizes in zip(("closed form", "trace"), np.abs(errors).T, strict=False):
        print(f"{name}: {sizes.mean():.2%} on average, {sizes.max():.2%} at worst, of {len(sizes)}")


if __name__ == "__main__":
    sys.exit(main())
