"""Packed runs through the runtime's own commands: alone, on two ranks, and gone on with in the middle of an epoch.

Packs are counted as rows are: ranks and accumulation share the packs of a step, and a token weighs the same in any of them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import forked
import pytest
from e2e.conftest import make_work, parameters
from e2e.test_told import ALONE
from runtime.jobs import write_job

pytestmark = pytest.mark.slow

STEPS = 6
FP32 = 2e-6
"""Of losses of about 4, summed in another order."""


class Runs:
    def __init__(self, work: Path, tiny: Path, server: forked.Server) -> None:
        self.work, self.tiny, self.server = work, tiny, server

    def run(self, command: str, *options: str, **changes: Any) -> None:
        base: dict[str, Any] = {f"distributed__{k}": v for k, v in ALONE.items()} | {
            "dataset__packing": True, "dataset__max_seq_length": 160, "model__attention": "varlen",
            "expect__trainable_parameters": parameters(self.tiny),
            "training__gradient_accumulation_steps": 4, "training__max_steps": STEPS, "training__eval_steps": 6,
            "output_dir": "alone",
        }  # fmt: skip
        job = write_job(self.work, **(base | changes))
        self.server.start(job, self.work / "log", *options, command=command)
        assert set(self.server.wait()) == {0}, (self.work / "log").read_text()[-3000:]

    def stop(self, output: str, target: str) -> None:
        """A copy of a run, as if it had been killed before its last checkpoint was whole."""
        shutil.copytree(self.work / output, self.work / target, symlinks=True)
        shutil.rmtree(self.work / target / f"checkpoint-{STEPS}")
        (self.work / target / "metrics.json").unlink()
        (self.work / target / "metrics.jsonl").unlink()

    def losses(self, output: str) -> dict[int, float]:
        lines = [json.loads(line) for line in (self.work / output / "metrics.jsonl").read_text().splitlines()]
        return {line["step"]: line["loss"] for line in lines if "loss" in line}

    def metrics(self, output: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.work / output / "metrics.json").read_text())
        return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny: Path, server: forked.Server) -> Runs:
    found = Runs(make_work(tmp_path_factory.mktemp("packing"), tiny), tiny, server)
    found.run("prepare")
    found.run("train")
    return found


def test_it_learns_and_counts_real_tokens(runs: Runs) -> None:
    found = runs.metrics("alone")
    assert found["perplexity_after"] < found["perplexity_before"]
    assert found["batch_fill"] == pytest.approx(1.0), "each batch is of the same length"
    report = json.loads(next((runs.work / "alone" / ".prepared").glob("*/report.json")).read_text())
    assert report["train_packs"] < report["train_rows"] / 1.5, "several rows share a pack"
    share = found["tokens_per_second"] / found["padded_tokens_per_second"]
    assert share == pytest.approx(report["train_fill"], abs=0.03)


def test_two_ranks_make_the_same_steps(runs: Runs) -> None:
    (runs.work / "two").mkdir()
    shutil.copytree(runs.work / "alone" / ".prepared", runs.work / "two" / ".prepared")
    both = {"strategy": "ddp", "world_size": 2, "processes_per_node": 2, "data_parallel": 2}
    runs.run(
        "train", output_dir="two", training__gradient_accumulation_steps=1, training__micro_batch_size=2,
        **{f"distributed__{k}": v for k, v in both.items()},
    )  # fmt: skip
    alone, two = runs.losses("alone"), runs.losses("two")
    assert len(two) == STEPS and two == pytest.approx(alone, rel=FP32)
    figures = ("perplexity_before", "perplexity_after", "eval_loss_after")
    assert [runs.metrics("two")[f] for f in figures] == pytest.approx(
        [runs.metrics("alone")[f] for f in figures], rel=FP32
    )


def test_gone_on_with_in_the_middle_of_an_epoch_the_next_packs_are_the_same(runs: Runs) -> None:
    whole = runs.losses("alone")
    runs.stop("alone", "stopped")
    runs.run("train", "--resume", output_dir="stopped")
    again = runs.losses("stopped")
    assert sorted(again) == [5, 6]
    assert again == pytest.approx({step: whole[step] for step in again}, rel=FP32)


STREAMED = {"dataset__streaming": True, "dataset__validation_split": 0.0}


@pytest.mark.parametrize("packing", [True, False])
def test_streamed_it_goes_on_with_the_same_rows(runs: Runs, packing: bool) -> None:
    """Nothing is prepared but one window, to see that it can be; each rank has windows of its own."""
    both = {"strategy": "ddp", "world_size": 2, "processes_per_node": 2, "data_parallel": 2}
    name = f"streamed-{packing}"
    more: dict[str, Any] = STREAMED | {
        "dataset__packing": packing, "model__attention": "varlen" if packing else "sdpa",
        "training__gradient_accumulation_steps": 2, **{f"distributed__{k}": v for k, v in both.items()},
    }  # fmt: skip
    runs.run("prepare", output_dir=name, **more)
    assert "rows are streamed" in (runs.work / "log").read_text()
    runs.run("train", output_dir=name, **more)
    assert not list((runs.work / name).rglob("*.arrow"))
    journals = sorted((runs.work / name).rglob("windows-*.txt"))
    assert [j.read_text().split()[0] for j in journals] == ["0", "1"]
    runs.stop(name, f"{name}-again")
    runs.run("train", "--resume", output_dir=f"{name}-again", **more)
    whole, again = runs.losses(name), runs.losses(f"{name}-again")
    assert sorted(again) == [5, 6] and again == pytest.approx({step: whole[step] for step in again}, rel=FP32)
