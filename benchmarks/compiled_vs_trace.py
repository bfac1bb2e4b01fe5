"""The closed form of compiled blocks against the trace of them, over random configurations (random_shared.compiled).

    python benchmarks/compiled_vs_trace.py
    python benchmarks/compiled_vs_trace.py --trace 120

The first form evaluates the closed form against traces that are kept; the second makes those that are missing, each in a
process of its own: what torch.compile remembers of one would be found by the next (ten seconds each on one core).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any, Final

from closed_form_vs_trace import KEPT, compared, line, method_of, outliers, read, write

KEPT_COMPILED: Final = KEPT.with_name("compiled_trace.jsonl.xz")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trace", type=int, default=0, help="make this many traces first")
    options = parser.parse_args()
    if options.trace:
        make(options.trace)
    found = [compared(row) for row in read(KEPT_COMPILED) if "error" not in row]
    keys = {
        "all": lambda c: "all",
        "family": lambda c: c.row["model"],
        "method": method_of,
        "checkpointing": lambda c: {True: "full", False: "none"}.get(c.row["gc"], "selective"),
        "attention": lambda c: c.row["attention"],
        "weights": lambda c: c.row["dtype"],
    }
    for title, key in keys.items():
        print(f"\n| {title} | configurations | mean | median | largest | above 3% |\n|---|--:|--:|--:|--:|--:|")
        groups: dict[str, list[float]] = {}
        for one in found:
            groups.setdefault(key(one), []).append(one.error)  # type: ignore[no-untyped-call]
        print("\n".join(line(name, errors) for name, errors in sorted(groups.items())))
    print("\n".join(outliers(found)))
    return 0


def make(count: int) -> None:
    """Traces what is not there yet. What cannot be traced is kept with the reason."""
    import axoc_runtime.trace.inductor
    import axoc_runtime.trace.step  # noqa: F401
    import traced_rows
    from random_shared import compiled

    traced_rows.prepare()
    rows = {row["id"]: row for row in read(KEPT_COMPILED)}
    for row in compiled(count):
        if row["id"] not in rows:
            rows[row["id"]] = row | apart(row)
            kept_whole(rows)


def kept_whole(rows: dict[str, dict[str, Any]]) -> None:
    """A run may be stopped at any time."""
    beside = KEPT_COMPILED.with_suffix(".new")
    write(beside, rows.values())
    beside.replace(KEPT_COMPILED)


def apart(row: dict[str, Any]) -> dict[str, Any]:
    """A row's trace, made by a child."""
    import traced_rows

    ours, theirs = os.pipe()
    if os.fork() == 0:
        try:
            found = traced_rows.traced(row)
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {error}"[:200]}
        with os.fdopen(theirs, "w") as file:
            json.dump(found, file)
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as file:
        text = file.read()
    os.wait()
    return json.loads(text) if text else {"error": "its process ended"}


if __name__ == "__main__":
    sys.exit(main())
