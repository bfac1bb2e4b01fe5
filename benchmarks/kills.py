"""Kills a run at random moments, saving among them, and resumes it each time: are the losses those of a run left alone?

    python benchmarks/kills.py [--kills 20] [--strategy ddp] [--seed N]

Each kill is SIGKILL to all ranks, either after a random time or as soon as a checkpoint is being written (its folder is
there, its files are not all). After each the resumed run must say that it goes on from a checkpoint whose files were
whole; the last run is left to its end, and its losses, those of the runs before it included, are held against a run that
was never killed. Exit 1 where anything differs. Models, rows and ranks are those of tests/e2e: a start takes seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "runtime")]

import forked  # noqa: E402

STEPS_A_KILL = 15
"""More than a kill waits for: the run must not end before the last one."""
STEPS_WAITED = 8
STEP = re.compile(r"^axoc: step \d+ of \d+: loss", re.MULTILINE)
SAVE_STEPS = 3
TOLERANCE = 1e-6


@dataclass
class Kill:
    moment: str
    """``save``: while a checkpoint was being written; ``any``: after a random time."""
    while_saving: bool
    """What was seen when all ranks were gone: a half-written checkpoint."""
    newest: int
    """Steps of the newest complete checkpoint then; 0 where there was none."""
    seconds: float
    """From the start of the processes to the kill."""


@dataclass
class Report:
    kills: list[Kill] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    compared: int = 0
    """Steps whose losses were compared."""
    largest_difference: float = 0.0
    start_seconds: list[float] = field(default_factory=list)
    """From the start of the processes to the first step."""


@dataclass
class Course:
    """One job in one folder, killed again and again."""

    server: forked.Server
    job: Path
    output: Path
    draw: random.Random
    report: Report

    def killed_once(self, wish: str) -> bool:
        """False where the run came to its end before it could be killed."""
        began, log = time.monotonic(), self.output.parent / "log"
        log.unlink(missing_ok=True)
        expected = self._newest()
        pids = self.server.start(self.job, log, "--resume")
        ended = self._wait_to_kill(wish, pids, log, began)
        codes = self.server.wait() if ended else self.server.kill()
        if codes and set(codes) == {0}:
            return False
        if set(codes) != {-9}:
            self.report.problems.append(f"ended with {codes} before it was killed: {log.read_text()[-500:]}")
            return False
        saving = any((self.output / ".saving").glob("checkpoint-*"))
        self.report.kills.append(Kill(wish, saving, self._newest(), time.monotonic() - began))
        self._check(log.read_text(), expected)
        return True

    def finish(self) -> None:
        log = self.output.parent / "log"
        log.unlink(missing_ok=True)
        expected = self._newest()
        self.server.start(self.job, log, "--resume")
        if set(self.server.wait()) != {0}:
            self.report.problems.append(f"the last resume failed: {log.read_text()[-500:]}")
        self._check(log.read_text(), expected)

    def _wait_to_kill(self, wish: str, pids: list[int], log: Path, began: float) -> bool:
        """Returns when it is time, True where a rank has ended by itself."""
        wanted, saving = self.draw.randint(1, STEPS_WAITED), self.output / ".saving"
        until = float("inf")
        while time.monotonic() < until:
            if any(_gone(pid) for pid in pids):
                return True
            made = len(STEP.findall(log.read_text())) if log.exists() else 0
            if made and len(self.report.start_seconds) == len(self.report.kills):
                self.report.start_seconds.append(time.monotonic() - began)
            if until == float("inf") and made >= wanted and (wish == "any" or any(saving.glob("checkpoint-*"))):
                until = time.monotonic() + self.draw.uniform(0, 0.1)  # anywhere within a step or a save
            time.sleep(0.001)
        return False

    def _check(self, shown: str, newest: int) -> None:
        """It went on from the newest complete checkpoint, and found none damaged."""
        said = f"resuming from {self.output / f'checkpoint-{newest}'}\n" if newest else "training from the start\n"
        if said not in shown or "damaged" in shown or "Traceback" in shown:
            self.report.problems.append(f"expected {said!r}: {shown[-1000:]}")

    def _newest(self) -> int:
        steps = [int(p.parent.name.rpartition("-")[2]) for p in self.output.glob("checkpoint-*/.axoc-complete")]
        return max(steps, default=0)


def _gone(pid: int) -> bool:
    """Ended, and not yet waited for by the server."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def losses(output: Path) -> dict[int, tuple[float, float]]:
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return {v["step"]: (v["loss"], v["grad_norm"]) for v in lines if "loss" in v}


def run(kills: int, strategy: str, seed: int, folder: Path) -> Report:
    """In ``folder``, which is empty. Progress on standard error."""
    report, draw, steps = Report(), random.Random(seed), STEPS_A_KILL * kills
    server = forked.Server(forked.environment())
    try:
        whole, output = _jobs(folder, strategy, steps, server)
        server.start(whole, folder / "whole.log")
        assert set(server.wait()) == {0}, (folder / "whole.log").read_text()[-2000:]
        course = Course(server, output, folder / "killed", draw, report)
        for number in range(kills):
            if not course.killed_once("save" if number % 2 else "any"):
                break
            print(f"kill {number + 1} of {kills}: {report.kills[-1]}", file=sys.stderr, flush=True)
        course.finish()
    finally:
        server.close()
    _compare(report, losses(folder / "whole"), losses(folder / "killed"), steps)
    return report


def _compare(report: Report, expected: dict[int, Any], found: dict[int, Any], steps: int) -> None:
    if sorted(found) != list(range(1, steps + 1)):
        report.problems.append(f"steps told: {len(found)} of {steps}")
    report.compared = len(expected.keys() & found.keys())
    both = [
        abs(a - b) for step in expected.keys() & found.keys() for a, b in zip(expected[step], found[step], strict=True)
    ]
    report.largest_difference = max(both, default=float("inf"))
    if report.largest_difference > TOLERANCE:
        report.problems.append(f"losses differ by up to {report.largest_difference:.1e}")


def _jobs(folder: Path, strategy: str, steps: int, server: forked.Server) -> tuple[Path, Path]:
    """The job of the run that is left alone, and of the one that is killed; the rows prepared for both."""
    from e2e.conftest import make_tiny, make_work
    from e2e.test_strategies import of_strategy
    from runtime.conftest import make_tokenizer
    from runtime.jobs import write_job

    tiny = make_tiny(folder / "tiny", make_tokenizer())
    work = make_work(folder, tiny)
    changes = of_strategy(work, strategy, tiny) | {
        "training__max_steps": steps, "training__save_steps": SAVE_STEPS, "training__eval_steps": steps,
        "resume__strategies": [strategy],
    }  # fmt: skip
    jobs = []
    for name in ("whole", "killed"):
        path = write_job(folder, output_dir=name, **changes).rename(folder / f"{name}.json")
        server.start(path, folder / "prepare.log", command="prepare")
        assert server.wait() == [0], (folder / "prepare.log").read_text()
        jobs.append(path)
    return jobs[0], jobs[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--strategy", default="ddp", choices=["ddp", "fsdp", "zero1", "zero2", "zero3"])
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    report = run(options.kills, options.strategy, options.seed, folder)
    saving = sum(k.while_saving for k in report.kills)
    starts = sorted(report.start_seconds)
    print(
        f"{options.strategy}, seed {options.seed}: {len(report.kills)} kills, {saving} of them while a checkpoint was written"
    )
    what = f"of a loss or a gradient's norm to the run left alone, in {report.compared} steps"
    print(f"largest difference {what}: {report.largest_difference:.1e}")
    print(f"start to first step: median {starts[len(starts) // 2]:.1f} s")
    for problem in report.problems:
        print(f"problem: {problem}")
    if not report.problems and os.environ.get("KEEP") is None:
        shutil.rmtree(folder)
    return 1 if report.problems or len(report.kills) < options.kills else 0


if __name__ == "__main__":
    sys.exit(main())
