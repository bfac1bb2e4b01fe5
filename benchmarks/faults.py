"""One row in a hundred damaged, of as many as are asked for: whether `axoc data check` tells each with its place, and no other.

    python benchmarks/faults.py --rows 100000 [--kind texts|pictures] [--name data.jsonl|data.json] [--seed 7]

The rows and the ways are those of the tests (tests/runtime/faults.py, tests/runtime/picture_faults.py).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--kind", choices=["texts", "pictures"], default="texts")
    parser.add_argument("--name", choices=["data.jsonl", "data.json"], default="data.jsonl")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return checked(Path(folder), options)


def checked(folder: Path, options: argparse.Namespace) -> int:
    from axoc_runtime.datacheck import check
    from runtime.faults import TEXTS, damaged_file
    from runtime.picture_faults import PICTURES

    from runtime import test_faults

    kind = TEXTS if options.kind == "texts" else PICTURES
    readable(folder, options.kind)
    planted = damaged_file(folder / options.name, options.rows, seed=options.seed, kind_of_rows=kind)
    began, said = time.monotonic(), io.StringIO()
    with contextlib.redirect_stdout(said):
        check.run(test_faults.data_job(folder, options.name, sees=kind is not TEXTS), None, as_json=True)
    (account,) = json.loads(said.getvalue())["datasets"]
    found, wanted = (
        set(f) for f in (test_faults.reported(folder / "out/data-check.csv"), test_faults.expected(planted))
    )
    missed, more = wanted - found, found - wanted
    lost = account["rows"] - account["used"] - account["listed"]
    print(
        f"{options.kind} in {options.name}: {account['rows']:,} rows, {len(planted):,} of them damaged in {len(kind.damages)} ways"
    )
    print(f"  {len(missed)} missed, {len(more)} sound ones reported, {lost} lost, in {time.monotonic() - began:.0f} s")
    return 1 if missed or more or lost or account["rows"] != options.rows else 0


def readable(folder: Path, kind: str) -> None:
    """A tokenizer of characters for texts; a small model's processor, and the images that rows name."""
    from axoc_runtime.models import tokenizer
    from runtime.conftest import make_tokenizer
    from runtime.picture_faults import pictures
    from seeing import MODELS

    if kind == "pictures":
        MODELS["llava"](folder / "model")
        pictures(folder)
        return
    made: Any = make_tokenizer()
    tokenizer.load_tokenizer = lambda job: made


if __name__ == "__main__":
    sys.exit(main())
