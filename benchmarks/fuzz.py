"""Bytes and rows that may be anything, for minutes, at every parser of the runtime: nothing but a message may come of them.

    python benchmarks/fuzz.py --seconds 600 [--engine mutation|hypothesis|atheris] [--seed 1]

`mutation` changes sound files and rows at random. `hypothesis` runs the suite's own properties (tests/runtime/test_fuzz.py) with
one seed after another. `atheris` (pip install atheris) is guided by the lines that were reached.
What brings a traceback is written to the folder ``--found``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

PIECES: Final = (
    b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"\n", b"\r", b"\x00", b"\xff", b"\xed\xa0\x80", b"\\ud800", b"null",
    b"1e999", b"-", b"true", b"<", b">", b"&#x110000;", b"WARC/1.0\r\n", b"Content-Length: -1\r\n", b"\x1f\x8b", b"PAR1", b"ARROW1",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--engine", choices=["mutation", "hypothesis", "atheris"], default="mutation")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--found", type=Path, default=Path("fuzz-found"))
    options = parser.parse_args()
    return {"atheris": guided, "hypothesis": drawn, "mutation": mutated}[options.engine](options)


def drawn(options: argparse.Namespace) -> int:
    os.environ["AXOC_FUZZ_TIMES"] = "8"
    from hypothesis import seed

    from runtime import test_fuzz

    tests = [test for name, test in vars(test_fuzz).items() if name.startswith("test_")]
    ends, tried, failed, number = time.monotonic() + options.seconds, 0, 0, options.seed
    while time.monotonic() < ends:
        for test in tests:
            if time.monotonic() > ends:
                break
            marks = [mark for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"]
            for more in [{mark.args[0]: value} for mark in marks for value in mark.args[1]] or [{}]:
                number, tried = number + 1, tried + test_fuzz.SHORT.max_examples
                failed += _fails(seed(number)(test), more)
    print(f"at least {tried:,} rows and files in {options.seconds:.0f} s, {failed} with a traceback")
    return 1 if failed else 0


def _fails(test: Any, more: dict[str, Any]) -> bool:
    try:
        test(**more)
    except Exception:
        print(traceback.format_exc(), flush=True)
        return True
    return False


def mutated(options: argparse.Namespace) -> int:
    from runtime import format_rows, fuzzing

    draw, seeds, endings = random.Random(options.seed), fuzzing.seeds(), fuzzing.endings()
    taught = [json.dumps(row, default=repr) for row, _ in format_rows.sft_rows(*format_rows.GIVEN[0]).values()]
    taught += [json.dumps(row, default=repr) for row in format_rows.other_rows(*format_rows.GIVEN[0]).values()]
    seeds[".jsonl"] = "\n".join(taught).encode()
    ends, tried, failed = time.monotonic() + options.seconds, 0, 0
    while time.monotonic() < ends:
        ending = draw.choice(endings)
        content = bytearray(draw.choice(taught).encode() if draw.random() < 0.3 else seeds.get(ending, b""))
        for _ in range(draw.randint(1, 6)):
            at = draw.randint(0, len(content))
            added = draw.choice(PIECES) if draw.random() < 0.6 else draw.randbytes(draw.randint(0, 12))
            content[at : at + draw.randint(0, 12)] = added
        tried += 1
        failed += _tried(ending, bytes(content), options.found)
    print(f"{tried:,} files in {options.seconds:.0f} s, {failed} with a traceback")
    return 1 if failed else 0


def _tried(ending: str, content: bytes, found: Path) -> bool:
    from runtime import fuzzing

    try:
        fuzzing.one(ending, content)
    except Exception:
        found.mkdir(exist_ok=True)
        name = f"{len(list(found.iterdir())):04d}{ending}"
        (found / name).write_bytes(content)
        print(f"{name}: {traceback.format_exc().strip().splitlines()[-1]}", flush=True)
        return True
    return False


def guided(options: argparse.Namespace) -> int:
    """The first byte chooses the ending."""
    import atheris

    with atheris.instrument_imports(include=["axoc_runtime.ingest"]):
        from runtime import fuzzing
    endings = [e for e in fuzzing.endings() if e.count(".") == 1]
    corpus = options.found / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for index, ending in enumerate(endings):
        (corpus / f"seed{index}").write_bytes(bytes([index]) + fuzzing.seeds().get(ending, b"x"))

    def one(data: bytes) -> Any:
        if data:
            fuzzing.one(endings[data[0] % len(endings)], data[1:])

    limits = [f"-max_total_time={int(options.seconds)}", "-max_len=4096", f"-seed={options.seed}", "-rss_limit_mb=4096"]
    atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={options.found}/", str(corpus)], one)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
