"""Strategies on a mesh of ranks, each held against one process that trains the whole model on the same batches."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import forked
import pytest
from e2e.conftest import Launch, clean_environment, forking, make_work, parameters, patch_at_import
from e2e.test_strategies import FSDP, metrics, zero

pytestmark = pytest.mark.slow

LOSS_TOLERANCE = 1e-5
"""Nats. float32 sums taken in another order: 4 steps of AdamW bring them no further apart."""
WEIGHT_TOLERANCE = 2e-4
"""AdamW's first steps are of the size of the learning rate (1e-3) whatever the gradient's: where a gradient is next to
nothing, its rounding decides."""

BLOCK_PARAMETERS = 36_992
"""Of one of the tiny model's four blocks."""
PAIRS = {"blocks_per_unit": 2, "min_unit_parameters": 2 * BLOCK_PARAMETERS}
HYBRID = {"world_size": 4, "processes_per_node": 4, "data_parallel": 4, "replicate_degree": 2}
TENSOR = {"world_size": 4, "processes_per_node": 4, "data_parallel": 2, "tensor_parallel": 2}
RECOMPUTED = {"training__gradient_checkpointing": "full", "training__checkpointed_layers": 4}


def of_mesh(work: Path, model: Path, placed: dict[str, Any], config: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Changes of the base job: four sequences a step, as ever. ``config``: beside what every fsdp.json says."""
    (work / "fsdp.json").write_text(json.dumps(FSDP | config))
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
def whole(tiny: Path, tmp_path_factory: pytest.TempPathFactory, server: forked.Server) -> Path:
    """The folder of a run in one process."""
    work = make_work(tmp_path_factory.mktemp("whole"), tiny)
    trained(forking(server, work, clean_environment()), work, alone(tiny))
    return work


def resumed_from_half_way(runtime: Launch, work: Path, job: dict[str, Any]) -> dict[str, Any]:
    """The same run, gone on with from its second step."""
    shutil.rmtree(work / "out" / "checkpoint-4")
    (work / "out" / "metrics.json").unlink()
    return trained(runtime, work, job, "--resume")


@pytest.mark.parametrize(
    ("placed", "config", "more"), [(HYBRID, PAIRS, RECOMPUTED), (TENSOR, {}, {})], ids=["hybrid", "tensor"]
)
def test_a_mesh_trains_the_same_model_and_resumes(
    work: Path, tiny: Path, whole: Path, runtime: Launch, placed: dict[str, Any], config: dict[str, Any], more: Any
) -> None:
    """Copies of shards in units of two blocks that are recomputed, and layers split over two ranks."""
    job = of_mesh(work, tiny, placed, config, **more)
    found, expected = trained(runtime, work, job), metrics(whole)
    mesh = {"copies": placed.get("replicate_degree", 1), "shards": 2, "tensor": placed.get("tensor_parallel", 1)}
    assert found["asserted"]["mesh of each weight"] == mesh
    assert found["asserted"]["units of blocks"] == 4 / config.get("blocks_per_unit", 1)
    assert found["eval_loss_before"] == pytest.approx(expected["eval_loss_before"], abs=LOSS_TOLERANCE)
    assert found["eval_loss_after"] == pytest.approx(expected["eval_loss_after"], abs=LOSS_TOLERANCE)
    assert_same_model(work / "out" / "final", whole / "out" / "final")
    resumed = resumed_from_half_way(runtime, work, job)
    assert resumed["steps_this_run"] == 2
    assert resumed["eval_loss_after"] == pytest.approx(found["eval_loss_after"], abs=1e-6)


def offloaded(stage: int) -> dict[str, Any]:
    """As the compiler emits it."""
    config = zero(stage)
    config["zero_optimization"]["offload_optimizer"] = {"device": "cpu", "pin_memory": False}
    if stage == 3:
        config["zero_optimization"]["offload_param"] = {"device": "cpu", "pin_memory": False}
    return config


@pytest.mark.parametrize(
    ("strategy", "offload", "config"),
    [
        ("zero2", "optimizer", offloaded(2)),
        ("zero3", "optimizer+parameters", offloaded(3)),
        ("fsdp", "optimizer+parameters", FSDP | {"offload_params": True, "cpu_offload": True}),
    ],
)
def test_what_is_offloaded_lies_on_the_host_and_trains_the_same_model(
    work: Path, tiny: Path, whole: Path, runtime: Launch, strategy: str, offload: str, config: dict[str, Any]
) -> None:
    (work / "strategy.json").write_text(json.dumps(config))
    job = {
        "distributed__strategy": strategy,
        "distributed__offload": offload,
        "distributed__config": "strategy.json",
        "expect__trainable_parameters": parameters(tiny),
    }
    found = trained(runtime, work, job)
    place = (
        "blocks whose weights and states lie on the host" if strategy == "fsdp" else "DeepSpeed offloads the optimizer"
    )
    assert found["asserted"][place] in (True, [True])
    assert found["eval_loss_after"] == pytest.approx(metrics(whole)["eval_loss_after"], abs=1e-4)
    assert parameters(work / "out" / "final") == parameters(tiny)
    resumed = resumed_from_half_way(runtime, work, job)
    assert resumed["eval_loss_after"] == pytest.approx(found["eval_loss_after"], abs=1e-5)


SABOTAGED = {
    "hybrid": (
        HYBRID | {"offload": "optimizer+parameters"},
        "mesh.has_mesh = lambda placed: False\n"
        "units.blocks_per_unit = lambda job: 1\n"
        "import os\n"
        "os.environ.pop('FSDP_OFFLOAD_PARAMS')",
        (
            "mesh of each weight: planned {'copies': 2, 'shards': 2, 'tensor': 1}, found {'copies': 1, 'shards': 4",
            "units of blocks: planned 2, found 4",
            "lie on the host: planned [True], found [False]",
        ),
    ),
    "tensor": (
        {"data_parallel": 1, "tensor_parallel": 2},
        "tensor.split_layers = lambda model, mesh: None",
        ("'shards': 1, 'tensor': 2}, found {'copies': 1, 'shards': 1, 'tensor': 1}",),
    ),
}


@pytest.mark.parametrize("broken", SABOTAGED)
def test_what_is_not_sharded_as_planned_is_stopped_with_both_values(
    work: Path, tiny: Path, runtime: Launch, environment: dict[str, str], broken: str
) -> None:
    """Takes away what makes the promises true; the libraries would train on and say nothing."""
    placed, statements, messages = SABOTAGED[broken]
    code = f"from axoc_runtime.strategies import mesh, tensor, units\n{statements}"
    patch_at_import(work, environment, "axoc_runtime.arguments", code)
    job = of_mesh(work, tiny, placed, PAIRS)
    assert runtime("prepare", **job).returncode == 0
    done = runtime("train", **job)
    assert done.returncode != 0
    assert not [m for m in messages if m not in done.stderr]
    assert (work / "out" / ".exit-code").read_text() == "16\n"
