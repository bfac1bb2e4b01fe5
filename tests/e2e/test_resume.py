"""Killed at a random step and resumed, a run repeats what the uninterrupted one did; at another number of processes too.

Each rank kills itself with SIGKILL at the end of a step, before anything of it is logged or saved: no test waits for a
moment of another process. 18 rows and a global batch of 4: five steps an epoch, the last of them filled up.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forked
import pytest
from e2e.conftest import make_work, parameters
from e2e.test_strategies import of_strategy
from e2e.test_told import ALONE
from runtime.jobs import LORA, write_job

pytestmark = pytest.mark.slow

STEPS = 12
FP32 = 1e-6
"""Losses of about 4, and everything the same: seen, no difference at all."""
OTHER_ORDER = 5e-6
"""At another number of ranks gradients are summed in another order: a few ulps of a loss of 4, which are 2.4e-7 each."""

SUICIDE = """
import os, signal
from pathlib import Path
from transformers import TrainerCallback

class Suicide(TrainerCallback):
    def die(self, args, moment):
        order = Path(args.output_dir) / "kill_at"
        if order.exists() and order.read_text() == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_step_end(self, args, state, control, **kwargs):
        self.die(args, str(state.global_step))

    def on_train_end(self, args, state, control, **kwargs):
        self.die(args, "end")
"""


@dataclass
class Bench:
    """A folder with a model and rows, and a server that starts runs on them."""

    work: Path
    tiny: Path
    server: forked.Server
    prepared: Path

    def job(self, strategy: str, output: str, **changes: Any) -> Path:
        kind = strategy.removesuffix("+lora")
        base = {f"distributed__{k}": v for k, v in ALONE.items()} | {"training__gradient_accumulation_steps": 4}
        if kind != "single":
            base = of_strategy(self.work, kind, self.tiny)
        if strategy.endswith("+lora"):
            base |= {"adapter": LORA, "expect__trainable_parameters": 4 * 4 * 1024}
        base |= {
            "training__max_steps": STEPS,
            "training__eval_steps": 4,
            "training__weight_decay": 0.1,
            "output_dir": output,
        }
        if strategy == "single":
            base["expect__trainable_parameters"] = parameters(self.tiny)
        if kind not in ("single", "ddp"):
            base["resume__strategies"] = [kind]
        path = write_job(self.work, **(base | changes))
        (self.work / output).mkdir(exist_ok=True)
        if not (self.work / output / ".prepared").exists():
            (self.work / output / ".prepared").symlink_to(self.prepared)
        return path

    def run(self, strategy: str, output: str, *options: str, kill_at: str | None = None, **changes: Any) -> str:
        """What it printed. Fails where it did not end as it should: well, or killed."""
        job, order, log = self.job(strategy, output, **changes), self.work / output / "kill_at", self.work / "log"
        log.unlink(missing_ok=True)
        order.unlink(missing_ok=True)
        if kill_at is not None:
            order.write_text(kill_at)
        self.start(job, *options)
        codes = self.server.wait()
        order.unlink(missing_ok=True)
        shown = log.read_text()
        assert set(codes) == ({0} if kill_at is None else {-9}), shown[-3000:]
        return shown

    def start(self, job: Path, *options: str, command: str = "train") -> None:
        """With the callback that this folder has."""
        here = {"PYTHONPATH": str(self.work)}
        self.server.start(job, self.work / "log", *options, command=command, environment=here)

    def lines(self, output: str) -> dict[int, dict[str, float]]:
        """By step: what repeats, of the lines of training and of evaluation."""
        found: dict[int, dict[str, float]] = {}
        for line in (self.work / output / "metrics.jsonl").read_text().splitlines():
            value = json.loads(line)
            told = {k: value[k] for k in ("loss", "grad_norm", "learning_rate", "eval_loss") if k in value}
            found.setdefault(value["step"], {}).update(told)
        return found

    def checkpoints(self, output: str) -> list[int]:
        return sorted(
            int(p.parent.name.rpartition("-")[2]) for p in (self.work / output).glob("checkpoint-*/.axoc-complete")
        )

    def damage(self, output: str, file: str) -> None:
        """One byte of a file of the newest checkpoint, as a bad disk would."""
        path = self.work / output / f"checkpoint-{self.checkpoints(output)[-1]}" / file
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    def metrics(self, output: str) -> dict[str, Any]:
        value: dict[str, Any] = json.loads((self.work / output / "metrics.json").read_text())
        return value

    def copy(self, output: str, target: str) -> None:
        shutil.copytree(self.work / output, self.work / target, symlinks=True)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, tiny: Path, server: forked.Server) -> Bench:
    work = make_work(tmp_path_factory.mktemp("resume"), tiny)
    rows = (work / "data.jsonl").read_text().splitlines(keepends=True)
    (work / "data.jsonl").write_text("".join(rows[:100:5]))
    package = work / "suicide-1.0.dist-info"
    package.mkdir()
    (work / "suicide.py").write_text(SUICIDE)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: suicide\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[axoc_runtime.callbacks]\nsuicide = suicide:Suicide\n")
    found = Bench(work, tiny, server, work / "prepared")
    job = found.job("single", "first")
    (work / "first" / ".prepared").unlink()
    found.start(job, command="prepare")
    assert server.wait() == [0], (work / "log").read_text()
    (work / "first" / ".prepared").rename(found.prepared)
    return found


@pytest.fixture(scope="module")
def killed(bench: Bench) -> Callable[[str], int]:
    """Makes ``<strategy>`` (uninterrupted) and ``<strategy>-killed``, once; the last step that was made."""
    made: dict[str, int] = {}

    def make(strategy: str) -> int:
        if strategy not in made:
            bench.run(strategy, strategy)
            seed = random.randrange(2**32)
            made[strategy] = random.Random(seed).randrange(5, 10)
            print(f"seed {seed}: {strategy} is killed at step {made[strategy]} of {STEPS}")
            bench.run(strategy, f"{strategy}-killed", kill_at=str(made[strategy]))
        return made[strategy]

    return make


def assert_repeats(bench: Bench, reference: str, output: str, after: int, tolerance: float) -> None:
    expected, found = bench.lines(reference), bench.lines(output)
    assert sorted(found) == list(range(1, STEPS + 1))
    for step in range(after + 1, STEPS + 1):
        assert found[step] == pytest.approx(expected[step], abs=tolerance), f"step {step}"


@pytest.mark.parametrize("strategy", ["single", "ddp", "ddp+lora", "fsdp", "zero1", "zero2", "zero3"])
def test_losses_after_a_kill_are_the_uninterrupted_runs(
    bench: Bench, killed: Callable[[str], int], strategy: str
) -> None:
    step = killed(strategy)
    last = (step - 1) // 2 * 2  # of step's own checkpoint nothing was written
    assert bench.checkpoints(f"{strategy}-killed") == [last - 2, last]
    bench.copy(f"{strategy}-killed", f"{strategy}-resumed")
    shown = bench.run(strategy, f"{strategy}-resumed", "--resume")
    assert f"resuming from {bench.work / f'{strategy}-resumed' / f'checkpoint-{last}'}" in shown
    assert_repeats(bench, strategy, f"{strategy}-resumed", last, FP32)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "zero2", "zero3"])
def test_two_processes_four_and_two_again(bench: Bench, killed: Callable[[str], int], strategy: str) -> None:
    last = (killed(strategy) - 1) // 2 * 2
    four = {
        "distributed__world_size": 4, "distributed__processes_per_node": 4, "distributed__data_parallel": 4,
        "training__gradient_accumulation_steps": 1,
    }  # fmt: skip
    if strategy.startswith("zero"):
        bench.job(strategy, strategy)  # writes this stage's configuration
        config = json.loads((bench.work / "deepspeed.json").read_text())
        (bench.work / "four.json").write_text(json.dumps(config | {"gradient_accumulation_steps": 1}))
        four["distributed__config"] = "four.json"
    output = f"{strategy}-regrouped"
    bench.copy(f"{strategy}-killed", output)
    shown = bench.run(strategy, output, "--resume", kill_at=str(last + 3), training__save_steps=1, **four)
    assert f"checkpoint-{last}, written by 2 processes, with 4" in shown
    assert bench.checkpoints(output) == [last + 1, last + 2]
    shown = bench.run(strategy, output, "--resume")
    assert f"checkpoint-{last + 2}, written by 4 processes, with 2" in shown
    assert_repeats(bench, strategy, output, last, OTHER_ORDER)


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(bench: Bench, killed: Callable[[str], int]) -> None:
    last = (killed("ddp") - 1) // 2 * 2
    bench.copy("ddp-killed", "ddp-damaged")
    bench.damage("ddp-damaged", "optimizer.pt")
    shown = bench.run("ddp", "ddp-damaged", "--resume")
    assert f"checkpoint-{last} is damaged: optimizer.pt does not have the SHA-256 it was written with" in shown
    assert f"ddp-damaged/checkpoint-{last - 2}\n" in shown and f"damaged-checkpoint-{last}" in shown
    assert_repeats(bench, "ddp", "ddp-damaged", last - 2, FP32)


def test_dropout_draws_what_it_would_have_drawn(bench: Bench, killed: Callable[[str], int]) -> None:
    """A stream that began anew would show in the first loss."""
    killed("ddp+lora")
    dropping = {"adapter": LORA | {"dropout": 0.3}}
    bench.run("ddp+lora", "dropout", **dropping)
    assert bench.lines("dropout")[1] != bench.lines("ddp+lora")[1]
    bench.run("ddp+lora", "dropout-resumed", kill_at="7", **dropping)
    bench.run("ddp+lora", "dropout-resumed", "--resume", **dropping)
    assert_repeats(bench, "dropout", "dropout-resumed", 6, FP32)


WORSE = {
    "training__learning_rate": 1.0, "training__early_stopping_patience": 3,
    "training__eval_steps": 1, "training__save_steps": 1,
}  # fmt: skip
"""A rate that makes each evaluation but the first ones worse."""


def test_patience_goes_on_where_it_was(bench: Bench) -> None:
    """A patience that began anew would stop the run later; one that had run out must not make another step."""
    bench.run("ddp", "patient", **WORSE)
    whole = bench.metrics("patient")
    best, stopped = whole["best_step"], whole["steps"]
    assert stopped == best + 3 < STEPS
    for moment in (str(best + 2), "end"):
        output = f"patient-{moment}"
        bench.run("ddp", output, kill_at=moment, **WORSE)
        assert {best, stopped if moment == "end" else best + 1} == set(bench.checkpoints(output))
        bench.run("ddp", output, "--resume", **WORSE)
        found = bench.metrics(output)
        assert (found["best_step"], found["steps"]) == (best, stopped)
        assert found["eval_loss_after"] == pytest.approx(whole["eval_loss_after"], abs=FP32)


def test_killed_after_its_last_step_a_run_makes_no_other(bench: Bench) -> None:
    """Twelve steps are two epochs and two fifths: transformers would go on with the epoch."""
    bench.run("single", "last", kill_at="end")
    assert bench.checkpoints("last")[-1] == STEPS
    bench.run("single", "last", "--resume")
    assert bench.metrics("last")["steps"] == STEPS and max(bench.lines("last")) == STEPS
