"""What the pinned libraries do, on two processes of a CPU: rules that are not enforced any more are not needed, and
those that are still are. A model of random weights trains for a few steps; what is looked at is what the run left.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import forked
import pytest
from e2e.conftest import note, parameters
from e2e.conftest import tiny as tiny
from e2e.conftest import work as work
from e2e.test_strategies import CONFIGS, metrics, of_strategy
from runtime.conftest import tokenizer as tokenizer
from runtime.jobs import LORA, write_job
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

WIDTH = 2 * 64 + 2 * (64 + 32) + 2 * 64 + 2 * (64 + 128) + (128 + 64)  # in and out of q, k, v, o, gate, up, down
ADAPTER = 4 * 4 * WIDTH  # layers x rank x width
WITH_ADAPTER = {"adapter": LORA, "expect__trainable_parameters": ADAPTER}
Launch = Callable[..., tuple[set[int], str]]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where libraries would compile their extensions."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module")
def server(compiled: Path) -> Iterator[forked.Server]:
    server = forked.Server(forked.environment() | {"TORCH_EXTENSIONS_DIR": str(compiled)})
    yield server
    server.close()


@pytest.fixture
def runtime(work: Path, server: forked.Server) -> Launch:
    """Runs a command of the runtime on a job: the codes it ended with, and what it printed."""

    def call(command: str, *options: str, **changes: Any) -> tuple[set[int], str]:
        job, log = write_job(work, **changes), work / "log"
        log.unlink(missing_ok=True)
        server.start(job, log, *options, command=command)
        codes = set(server.wait())
        if codes == {0}:
            note(command, json.loads(job.read_text()))
        return codes, log.read_text()

    return call


def run(launch: Launch, job: dict[str, Any], *options: str) -> None:
    """Prepares and trains; both must succeed."""
    for codes, printed in (launch("prepare", **job), launch("train", *options, **job)):
        assert codes == {0}, printed[-3000:]


def with_zero(work: Path, tiny: Path, strategy: str, zero: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A job of this strategy with these keys of zero_optimization changed; None leaves one out."""
    job = of_strategy(work, strategy, tiny, **more)
    config = deepcopy(CONFIGS[strategy])
    assert config is not None
    changed = config["zero_optimization"] | zero
    config["zero_optimization"] = {k: v for k, v in changed.items() if v is not None}
    config["bf16"]["enabled"] = more.get("distributed__mixed_precision") == "bf16"
    (work / "deepspeed.json").write_text(json.dumps(config))
    return job


def test_fsdp_still_cannot_step_with_bitsandbytes_states(work: Path, tiny: Path, runtime: Launch) -> None:
    """fsdp-8bit-optimizer is enforced: once this passes, give the rule its ``until``."""
    job = of_strategy(work, "fsdp", tiny, training__optimizer="adamw_bnb_8bit")
    assert runtime("prepare", **job)[0] == {0}
    codes, printed = runtime("train", **job)
    assert 0 not in codes
    assert "bitsandbytes.optimizer_update" in printed and "sharding strategy" in printed


@pytest.mark.combination(adapter="lora", strategy="zero3")
def test_zero3_recomputes_frozen_weights(work: Path, tiny: Path, runtime: Launch) -> None:
    """Every weight partitioned, norms too: those were the ones found empty. See zero3-checkpointed-adapter."""
    whole = {"stage3_param_persistence_threshold": 0}
    job = with_zero(work, tiny, "zero3", whole, **WITH_ADAPTER, training__gradient_checkpointing="full")
    run(runtime, job)
    assert metrics(work)["asserted"]["blocks that recompute"] == [0, 1, 2, 3]
    assert metrics(work)["perplexity_after"] < metrics(work)["perplexity_before"]


@pytest.mark.combination(adapter="lora", strategy="ddp")
def test_ddp_recomputes_beside_an_adapter(work: Path, tiny: Path, runtime: Launch) -> None:
    run(runtime, of_strategy(work, "ddp", tiny, **WITH_ADAPTER, training__gradient_checkpointing="full"))
    assert metrics(work)["asserted"]["blocks that recompute"] == [0, 1, 2, 3]
    assert metrics(work)["perplexity_after"] < metrics(work)["perplexity_before"]


def test_zero3_trains_and_saves_whole_modules_beside_an_adapter(work: Path, tiny: Path, runtime: Launch) -> None:
    lora = LORA | {"modules_to_save": ["lm_head"], "targets": ["q_proj"]}
    trained = 4 * 4 * (64 + 64) + 104 * 64
    run(runtime, of_strategy(work, "zero3", tiny, adapter=lora, expect__trainable_parameters=trained))
    saved = load_file(work / "out" / "adapter" / "adapter_model.safetensors")
    (head,) = [w for name, w in saved.items() if "lm_head" in name]
    original = load_file(tiny / "model.safetensors")["lm_head.weight"]
    assert head.shape == original.shape
    assert (head != original).any(dim=1).all(), "each row was trained, those of the other rank's shard too"


@pytest.mark.combination(adapter="lora", strategy="fsdp")
def test_fsdp_saves_the_whole_adapter_and_resumes(work: Path, tiny: Path, runtime: Launch) -> None:
    job = of_strategy(work, "fsdp", tiny, **WITH_ADAPTER)
    run(runtime, job)
    found = metrics(work)
    saved = load_file(work / "out" / "adapter" / "adapter_model.safetensors")
    assert sum(w.numel() for w in saved.values()) == ADAPTER
    grown = [w for name, w in saved.items() if "lora_B" in name]
    assert all(w.any(dim=1).all() for w in grown), "B begins at zero: each row was trained and saved"
    shutil.rmtree(work / "out" / "checkpoint-4")
    (work / "out" / "metrics.json").unlink()
    run(runtime, job, "--resume")
    assert metrics(work)["steps_this_run"] == 2
    assert metrics(work)["eval_loss_after"] == pytest.approx(found["eval_loss_after"], abs=1e-5)


def test_zero3_in_bfloat16_learns_as_zero2_does(work: Path, tiny: Path, runtime: Launch) -> None:
    losses = []
    for strategy in ("zero2", "zero3"):
        run(runtime, with_zero(work, tiny, strategy, {}, distributed__mixed_precision="bf16", training__max_steps=8))
        losses.append(metrics(work)["eval_loss_after"])
        shutil.rmtree(work / "out")
    assert losses[0] == pytest.approx(losses[1], rel=2e-3)


@pytest.mark.parametrize("strategy", ["zero2", "zero3"])
def test_offload_compiles_nothing(work: Path, tiny: Path, runtime: Launch, compiled: Path, strategy: str) -> None:
    host = {"device": "cpu", "pin_memory": False}
    run(runtime, with_zero(work, tiny, strategy, {"offload_optimizer": host}) | {"distributed__offload": "optimizer"})
    assert not list(compiled.glob("*"))
    assert metrics(work)["perplexity_after"] < metrics(work)["perplexity_before"]


def test_zero3_saves_whole_weights_even_where_the_file_forgets_to_ask(work: Path, tiny: Path, runtime: Launch) -> None:
    run(runtime, with_zero(work, tiny, "zero3", {"stage3_gather_16bit_weights_on_model_save": None}))
    assert parameters(work / "out" / "final") == parameters(tiny)


@pytest.mark.parametrize("strategy", ["fsdp", "zero3"])
def test_early_stopping_goes_back_to_the_best_checkpoint(
    work: Path, tiny: Path, runtime: Launch, strategy: str
) -> None:
    """A rate at which training diverges: the first evaluation is the best. Its model is saved, and its loss told."""
    stopping = {"training__early_stopping_patience": 3, "training__max_steps": 6, "training__learning_rate": 0.3}
    run(runtime, of_strategy(work, strategy, tiny, **stopping))
    told = metrics(work)["eval_loss_after"]
    shutil.copytree(work / "out" / "final", work / "best")
    shutil.rmtree(work / "out")
    run(runtime, of_strategy(work, "ddp", tiny, model__id="best", training__max_steps=1))
    assert metrics(work)["eval_loss_before"] == pytest.approx(told, abs=1e-4)


def test_accumulation_leaves_the_loss_as_it_is(work: Path, tiny: Path, runtime: Launch) -> None:
    """Rows have different numbers of label tokens, so a mean of means would differ."""
    losses = []
    for micro, accumulation in ((1, 4), (4, 1)):
        sizes = {"training__micro_batch_size": micro, "training__gradient_accumulation_steps": accumulation}
        run(runtime, of_strategy(work, "ddp", tiny, **sizes, training__global_batch_size=8, training__max_steps=8))
        losses.append(metrics(work)["eval_loss_after"])
        shutil.rmtree(work / "out")
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
