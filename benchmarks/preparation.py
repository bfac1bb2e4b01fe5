"""Preparation of data: rows a second against TRL's own, memory as the rows grow, and a second start.

    python benchmarks/preparation.py [--rows 20000] [--data FILE ...] [--processes 2] [--only axoc|trl] [--repeats 3]

Both sides get the same rows, tokenizer, template, limit of tokens and processes, in turn on the same processors:
conversations of which the last answer is learned (TRL: prompt and completion), tokenized and packed by best fit decreasing.
Twice: cold, from a process's start to its end with imports and the reading of rows; and steady, without either's imports, where
TRL's seconds are those of ``SFTTrainer._prepare_dataset`` alone and axoc's still those of all that it does: reading and checking
rows, too. Memory is the sum of the processes' own pages, sampled.

Rows are the conversations of ``--data``, files of any format, again and again, each time with another question; without it
documentation of Python's library, cut to chat-like lengths: lognormal, ``--median`` 300 tokens, sigma 0.8. Needs a
tokenizer: ``--model`` (``make run`` fetches one).
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from preparation_rows import rows, write
from preparation_sides import ROOT, axoc_job, cpu_seconds

PAIRS = (("axoc, cold", "TRL, cold"), ("axoc, steady", "TRL, steady"), ("axoc without checks, steady", "TRL, steady"))
STEADY = {"axoc, steady": "axoc", "axoc without checks, steady": "unchecked", "TRL, steady": "TRL"}


SETTLED_SECONDS = 2.5
"""Nobody trains on a file that was written this lately, and no digest of it would be remembered."""


class Peak:
    """Bytes of a process and all that it starts, their shared pages divided among them."""

    def __init__(self, process: subprocess.Popen[Any]) -> None:
        self.process, self.bytes = process, 0
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self) -> None:
        import psutil

        while self.process.poll() is None:
            try:
                root = psutil.Process(self.process.pid)
                sizes = [_pss(p) for p in (root, *root.children(recursive=True))]
            except psutil.Error:
                return
            self.bytes = max(self.bytes, sum(sizes))
            time.sleep(0.2)


def _pss(process: Any) -> int:
    """Pages of mapped files are left out: the kernel takes them back when it needs them."""
    import psutil

    try:
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except (OSError, psutil.Error):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss_Anon:"))


class Took(NamedTuple):
    seconds: float
    cpu_seconds: float
    """Of all processes together: what other work on the machine changes little."""
    peak_bytes: int = 0


def timed(command: list[str], processes: int) -> tuple[Took, str]:
    """From the process's start to its end, and what it wrote."""
    if shutil.which("taskset"):
        command = ["taskset", "-c", ",".join(str(c) for c in range(processes)), *command]
    began, used = time.perf_counter(), cpu_seconds()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    peak = Peak(process)
    out, _ = process.communicate()
    took = Took(time.perf_counter() - began, cpu_seconds() - used, peak.bytes)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}\n{out}")
    return took, out


class Bench:
    def __init__(self, folder: Path, asked: argparse.Namespace) -> None:
        self.folder, self.asked = folder, asked
        self.measured: dict[str, list[Took]] = defaultdict(list)

    def run(self, name: str) -> None:
        took, out = self._side(name) if name != "axoc, cold" else self.prepare()
        if name in STEADY:
            found = json.loads(out.splitlines()[-1])
            took = Took(found["seconds"], found["cpu_seconds"], took.peak_bytes)
        self.measured[name].append(took)
        said = out.splitlines()[-1] if name != "axoc, cold" else out.splitlines()[-2]
        peak = f"{took.peak_bytes / 2**20:,.0f} MiB at the peak"
        print(f"{name}: {took.seconds:.2f} s, {took.cpu_seconds:.2f} s of processors, {peak}: {said}", flush=True)

    def prepare(self, *, again: bool = False) -> tuple[Took, str]:
        """axoc's command, as launch.sh runs it."""
        job = axoc_job(self.folder, self.asked.model, self.asked.tokens)
        if not again:
            shutil.rmtree(self.folder / "out", ignore_errors=True)
        return timed([sys.executable, "-m", "axoc_runtime", "prepare", str(job)], self.asked.processes)

    def _side(self, name: str) -> tuple[Took, str]:
        sides = str(ROOT / "benchmarks/preparation_sides.py")
        given = [str(self.folder), str(self.asked.model), str(self.asked.tokens), str(self.asked.processes)]
        return timed([sys.executable, sides, STEADY.get(name, "TRL-cold"), *given], self.asked.processes)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20000)
    parser.add_argument("--data", type=Path, nargs="*", default=[])
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--median", type=int, default=300, help="tokens of a row")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", type=Path, default=ROOT / "models/SmolLM2-135M-Instruct")
    parser.add_argument(
        "--only", choices=("axoc", "trl"), help="axoc: its command and starting again; trl: its trainer"
    )
    return parser.parse_args()


def main() -> None:
    asked = parsed()
    with tempfile.TemporaryDirectory() as made:
        write(Path(made), rows(asked.rows, asked.data, asked.median))
        time.sleep(SETTLED_SECONDS)
        bench = Bench(Path(made), asked)
        cold = {"axoc": ["axoc, cold"], "trl": ["TRL, cold"]}.get(asked.only)
        for _ in range(asked.repeats):
            for name in cold or ["axoc, cold", "TRL, cold", *STEADY]:
                bench.run(name)
        if asked.only == "axoc":
            for start in ("second", "third"):
                again, out = bench.prepare(again=True)
                print(f"axoc, {start} start: {again.seconds:.2f} s: {out.splitlines()[-1]}", flush=True)
    report(bench.measured, asked.rows)


def report(measured: dict[str, list[Took]], count: int) -> None:
    for name, took in measured.items():
        seconds = sorted(t.seconds for t in took)
        middle = statistics.median(seconds)
        cpu, peak = statistics.median(t.cpu_seconds for t in took), max(t.peak_bytes for t in took)
        told = f"{middle:.1f} s ({seconds[0]:.1f} to {seconds[-1]:.1f}), {cpu:.1f} s of processors, {count / middle:,.0f} rows/s"
        print(f"{name}: {told}, {peak / 2**20:,.0f} MiB at the peak")
    for ours, theirs in PAIRS:
        if ours in measured and theirs in measured:
            both = list(zip(measured[theirs], measured[ours], strict=True))
            print(f"{ours}: {_times([(t.seconds, a.seconds) for t, a in both])} times the rows a second of TRL")
            print(f"    by processors' time {_times([(t.cpu_seconds, a.cpu_seconds) for t, a in both])}")


def _times(pairs: list[tuple[float, float]]) -> str:
    """Of each repeat's two: the median, the least and the most."""
    ratios = sorted(theirs / ours for theirs, ours in pairs)
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


if __name__ == "__main__":
    main()
