"""Strategies on a mesh of ranks, each held against one process that trains the whole model on the same batches."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from e2e.conftest import Launch, clean_environment, launcher, make_work, parameters
from e2e.test_strategies import FSDP, metrics

pytestmark = pytest.mark.slow

LOSS_TOLERANCE = 1e-5
"""Nats. float32 sums taken in another order: 4 steps of AdamW bring them no further apart."""
WEIGHT_TOLERANCE = 2e-4
"""AdamW's first steps are of the size of the learning rate (1e-3) whatever the gradient's: where a gradient is next to
nothing, its rounding decides."""

HYBRID = {"world_size": 4, "processes_per_node": 4, "data_parallel": 4, "replicate_degree": 2}
TENSOR = {"world_size": 4, "processes_per_node": 4, "data_parallel": 2, "tensor_parallel": 2}


def of_mesh(work: Path, model: Path, placed: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Changes of the base job: four sequences a step, as ever."""
    (work / "fsdp.json").write_text(json.dumps(FSDP))
    placed = {"strategy": "fsdp", "config": "fsdp.json"} | placed
    accumulation = 4 // placed["data_parallel"]
    return (
        {f"distributed__{k}": v for k, v in placed.items()}
        | {"training__gradient_accumulation_steps": accumulation, "expect__trainable_parameters": parameters(model)}
        | more
    )


def alone(model: Path) -> dict[str, Any]:
    """The same steps in one process."""
    placed = {"strategy": "single", "world_size": 1, "processes_per_node": 1, "data_parallel": 1}
    return {f"distributed__{k}": v for k, v in placed.items()} | {
        "training__gradient_accumulation_steps": 4,
        "expect__trainable_parameters": parameters(model),
    }


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(folder / "model.safetensors"))


def assert_same_model(one: Path, other: Path) -> None:
    import torch

    left, right = weights(one), weights(other)
    assert left.keys() == right.keys()
    far = {n: float((left[n] - right[n]).abs().max()) for n in left}
    assert not {n: d for n, d in far.items() if d > WEIGHT_TOLERANCE}
    assert all(torch.isfinite(t).all() for t in left.values())


def trained(runtime: Launch, work: Path, job: dict[str, Any], *options: str) -> dict[str, Any]:
    assert runtime("prepare", **job).returncode == 0
    done = runtime("train", *options, **job)
    assert done.returncode == 0, done.stderr[-4000:]
    return metrics(work)


@pytest.fixture(scope="module")
def whole(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run in one process."""
    work = make_work(tmp_path_factory.mktemp("whole"), tiny)
    trained(launcher(work, clean_environment()), work, alone(tiny))
    return work


@pytest.mark.parametrize("placed", [HYBRID, TENSOR], ids=["hybrid", "tensor"])
def test_a_mesh_trains_the_same_model_and_resumes(
    work: Path, tiny: Path, whole: Path, runtime: Launch, placed: dict[str, Any]
) -> None:
    job = of_mesh(work, tiny, placed)
    found, expected = trained(runtime, work, job), metrics(whole)
    print(json.dumps(found["asserted"], indent=1))
    assert found["eval_loss_before"] == pytest.approx(expected["eval_loss_before"], abs=LOSS_TOLERANCE)
    assert found["eval_loss_after"] == pytest.approx(expected["eval_loss_after"], abs=LOSS_TOLERANCE)
    assert_same_model(work / "out" / "final", whole / "out" / "final")
    shutil.rmtree(work / "out" / "checkpoint-4")
    (work / "out" / "metrics.json").unlink()
    resumed = trained(runtime, work, job, "--resume")
    assert resumed["steps_this_run"] == 2
    assert resumed["eval_loss_after"] == pytest.approx(found["eval_loss_after"], abs=1e-6)
