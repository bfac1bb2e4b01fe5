"""Preflight: every difference between this machine and the plan, at once, before anything is paid for."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from axoc_runtime import preflight
from axoc_runtime.errors import RuntimeFailure

from runtime.jobs import LORA, make_job


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a bundle; nothing is measured, which takes processes (tests/cluster)."""
    monkeypatch.setenv("AXOC_PREFLIGHT_SLOW", "off")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").touch()
    return tmp_path


def refused(folder: Path, **changes: Any) -> RuntimeFailure:
    with pytest.raises(RuntimeFailure) as caught:
        preflight.run(make_job(folder, **changes))
    return caught.value


def test_a_machine_that_fits(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preflight.run(make_job(folder))
    assert "2 x cpu as planned" in capsys.readouterr().out


def test_split_layers_are_no_difference(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preflight.run(make_job(folder, distributed__tensor_parallel=2, distributed__data_parallel=1))
    assert "as planned" in capsys.readouterr().out


def test_all_differences_at_once(folder: Path) -> None:
    failure = refused(folder, expect__host_bytes=1 << 60, expect__disk_bytes=1 << 60, model__id="models/gone/at/all")
    assert failure.exit_code == 12
    for part in ("of host memory are available", "are free in", "models/gone/at/all is not here"):
        assert part in str(failure)


def test_a_model_folder_without_safetensors(folder: Path) -> None:
    (folder / "model" / "model.safetensors").rename(folder / "model" / "pytorch_model.bin")
    assert "holds no safetensors" in str(refused(folder))


def test_an_output_folder_that_is_a_file(folder: Path) -> None:
    (folder / "out").touch()
    assert "is a file" in str(refused(folder))


def test_gpus_that_are_not_there(folder: Path) -> None:
    failure = refused(folder, distributed__device="cuda", expect__accelerator="h100-sxm-80gb")
    assert "2 x h100-sxm-80gb are needed on each node, 0 are visible here" in str(failure)


def test_another_gpu_a_smaller_one_and_one_in_use(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    class Properties:
        name, total_memory = "NVIDIA A100-SXM4-40GB", 40 << 30

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Properties)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (10 << 30, 40 << 30))
    job = {
        "distributed__device": "cuda", "distributed__processes_per_node": 1, "expect__accelerator": "h100-sxm-80gb",
        "expect__device_memory_bytes": 79 << 30, "prediction__device_used_bytes": 60 << 30,
    }  # fmt: skip
    text = str(refused(folder, **job))
    assert "device 0 is NVIDIA A100-SXM4-40GB, the plan is for h100-sxm-80gb" in text
    assert "device 0 has 40.0 GiB, the plan counts on 79.0 GiB" in text
    assert "10.0 of 40.0 GiB free, the plan needs 60.0 GiB" in text


def test_missing_packages_are_the_environments_fault(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else object())
    failure = refused(folder, adapter=LORA)
    assert failure.exit_code == 11 and "peft" in str(failure)


def test_what_a_job_imports(folder: Path) -> None:
    job = make_job(folder, distributed__strategy="zero2", model__kernels="liger", tracking=["wandb"])
    assert {"deepspeed", "liger_kernel", "wandb"} <= set(preflight.packages(job))
    assert "peft" not in preflight.packages(job)


@pytest.mark.parametrize("tracker", ["wandb", "mlflow"])
def test_a_tracker_that_no_lock_pins_is_refused_at_launch(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tracker: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == tracker else object())
    failure = refused(folder, tracking=["tensorboard", tracker])
    assert failure.exit_code == 11 and tracker in str(failure)
    assert f"take {tracker} out of tracking" in str(failure)
    preflight.run(make_job(folder, tracking=["tensorboard"]))
