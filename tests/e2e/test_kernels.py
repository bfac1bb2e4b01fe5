"""Packed training with the chunked loss and compiled blocks, sharded over two ranks: the losses of plain blocks on one."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import forked
import pytest
from e2e.conftest import make_work, parameters
from e2e.test_packing import STEPS, Runs
from e2e.test_strategies import FSDP
from safetensors import safe_open

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for a CPU needs a C++ compiler"),
    pytest.mark.skipif(" " in sys.prefix, reason="torch gives the compiler its own folder unquoted"),
]
FAST: dict[str, Any] = {
    "model__kernels": "chunked", "model__compile": True, "training__gradient_checkpointing": "full",
    "training__checkpointed_layers": 4, "output_dir": "fast", "training__gradient_accumulation_steps": 2,
    "distributed__strategy": "fsdp", "distributed__world_size": 2, "distributed__processes_per_node": 2,
    "distributed__data_parallel": 2, "distributed__config": "fsdp.json", "training__save_steps": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny: Path, server: forked.Server) -> Runs:
    found = Runs(make_work(tmp_path_factory.mktemp("kernels"), tiny), tiny, server)
    (found.work / "fsdp.json").write_text(json.dumps(FSDP))
    found.run("prepare")
    found.run("train")
    (found.work / "fast").mkdir()
    shutil.copytree(found.work / "alone" / ".prepared", found.work / "fast" / ".prepared")
    found.run("train", **FAST)
    return found


def names(folder: Path) -> list[str]:
    with safe_open(folder / "model.safetensors", framework="pt") as weights:
        return sorted(weights.keys())


def test_the_losses_are_the_same(runs: Runs) -> None:
    alone, fast = runs.losses("alone"), runs.losses("fast")
    assert len(fast) == STEPS and fast == pytest.approx(alone, rel=2e-5)
    plain, found = runs.metrics("alone"), runs.metrics("fast")
    assert found["perplexity_before"] == pytest.approx(plain["perplexity_before"], rel=1e-5)
    assert found["asserted"]["blocks that are FSDP units"] == 4 and found["asserted"]["wrapper"] == "FSDPModule"


def test_what_is_saved_is_named_as_ever(runs: Runs) -> None:
    assert names(runs.work / "fast" / "final") == names(runs.work / "alone" / "final")
    assert parameters(runs.work / "fast" / "final") == parameters(runs.tiny)


def test_it_goes_on_from_a_checkpoint(runs: Runs) -> None:
    before = runs.losses("fast")
    shutil.rmtree(runs.work / "fast" / f"checkpoint-{STEPS}")
    (runs.work / "fast" / "metrics.json").unlink()
    runs.run("train", "--resume", **FAST)
    assert runs.metrics("fast")["steps_this_run"] == STEPS - 3
    assert runs.losses("fast") == pytest.approx(before, rel=1e-6)
