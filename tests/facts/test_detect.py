"""`axoc inventory`: what it writes is read back as what was there."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from axoc.errors import UserError
from axoc.facts import detect as module
from axoc.facts.detect import parse_devices, render
from axoc.facts.inventory import detect, parse_inventory
from axoc.units import GIB

H100 = "NVIDIA H100 80GB HBM3, 81559, 480\n"


def read_back(text: str) -> tuple[Any, ...]:
    return parse_inventory("inv.yaml", text, "inv.yaml")


def test_gpus_of_one_kind_are_counted() -> None:
    text = render(parse_devices(H100 * 8), 2000.123, 192, 900.9)
    (cluster,) = read_back(text)
    assert cluster.label == "h100-sxm-80gb:8"
    assert cluster.accelerator.memory_bytes == 85017493504  # the catalog's: the driver's answer is as good as that
    assert cluster.disk_bytes == 900 * GIB and cluster.host_memory_bytes <= 2000.123 * GIB


def test_a_device_with_less_memory_than_the_catalog_says_so() -> None:
    (cluster,) = read_back(render(parse_devices("NVIDIA H100 80GB HBM3, 40448, 0\n"), 64, 8, 10))
    assert cluster.accelerator.memory_bytes == pytest.approx(39.5 * GIB)


def test_two_kinds_in_one_machine() -> None:
    devices = parse_devices(H100 + "NVIDIA L4, 23034, [N/A]\n")
    assert [c.label for c in read_back(render(devices, 64, 8, 10))] == ["h100-sxm-80gb:1", "l4-24gb:1"]


def test_what_the_driver_keeps_is_taken_off() -> None:
    assert parse_devices(H100) == [("h100-sxm-80gb", (81559 - 480) / 1024)]


def test_unknown_gpu() -> None:
    with pytest.raises(UserError, match="GTX 1080"):
        parse_devices("NVIDIA GeForce GTX 1080, 8192, 0\n" * 2)


def test_this_machine_without_nvidia_smi(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: Any, **__: Any) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "run", absent)
    (cluster,) = read_back(detect())
    assert cluster.label == "cpu:1" and cluster.host_memory_bytes > GIB / 2


def test_a_driver_that_fails_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess(args=[], returncode=9, stdout="NVIDIA-SMI has failed", stderr="")
    monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: failed)
    assert "accelerator: cpu" in detect()
