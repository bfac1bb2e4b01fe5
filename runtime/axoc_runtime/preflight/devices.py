"""The accelerators of this host, and their driver, against the plan."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from axoc_runtime.errors import EXIT_PREFLIGHT
from axoc_runtime.job import Job
from axoc_runtime.preflight.finding import Finding

GIB: Final = 1 << 30
MEMORY_TOLERANCE: Final = 0.02
"""A device may report this much less than the catalog's figure: drivers and error correction differ."""
KNOWN_NAMES: Final = {
    "h100": "H100",
    "h200": "H200",
    "a100": "A100",
    "b200": "B200",
    "l4": "L4",
    "l40s": "L40S",
    "rtx4090": "4090",
    "rtx3090": "3090",
    "t4": "T4",
    "v100": "V100",
    "mi300x": "MI300X",
}
"""First part of a catalog name -> what the driver's name of the device must contain."""
REPLAN: Final = "plan again for this machine: axoc inventory > here.yaml; axoc plan --inventory here.yaml"
DRIVER_FILE: Final = Path("/proc/driver/nvidia/version")


def device_names(job: Job) -> list[str]:
    if job.distributed.device == "cpu":
        return []
    import torch

    try:
        return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    except RuntimeError:  # the driver: check_driver says so
        return []


def driver_version() -> str | None:
    """Of NVIDIA's kernel module; None where there is none."""
    try:
        found = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)", DRIVER_FILE.read_text(encoding="utf-8"))
    except OSError:
        return None
    return found[1] if found else None


def check_devices(job: Job) -> Iterator[Finding]:
    if job.distributed.device == "cpu":
        return
    too_old = list(_check_driver())
    yield from too_old or (Finding(EXIT_PREFLIGHT, what, REPLAN) for what in _differences(job))


def _check_driver() -> Iterator[Finding]:
    """Within one major version of CUDA an older driver does (NVIDIA, CUDA Compatibility, "minor version compatibility")."""
    import torch

    ask: Any = getattr(torch._C, "_cuda_getDriverVersion", None)
    if ask is None or torch.version.cuda is None:
        return
    supports, needs = int(ask()), int(torch.version.cuda.split(".")[0])
    if 0 < supports // 1000 < needs:
        can = f"{supports // 1000}.{supports % 1000 // 10}"
        told = f"driver {driver_version() or ''} runs CUDA up to {can}, torch here is built for {torch.version.cuda}"
        yield Finding(EXIT_PREFLIGHT, told, f"a driver for CUDA {needs}, or a torch built for CUDA {can}")


def _differences(job: Job) -> Iterator[str]:
    import torch

    wanted, found = job.distributed.processes_per_node, torch.cuda.device_count()
    if found < wanted:
        yield f"{wanted} x {job.expect.accelerator} are needed on each node, {found} are visible here"
    for index in range(min(wanted, found)):
        properties = torch.cuda.get_device_properties(index)
        part = KNOWN_NAMES.get(job.expect.accelerator.split("-")[0])
        if part is not None and part not in properties.name:
            yield f"device {index} is {properties.name}, the plan is for {job.expect.accelerator}"
        if properties.total_memory < job.expect.device_memory_bytes * (1 - MEMORY_TOLERANCE):
            have, need = properties.total_memory / GIB, job.expect.device_memory_bytes / GIB
            yield f"device {index} has {have:.1f} GiB, the plan counts on {need:.1f} GiB"
        yield from _free(job, index)


def _free(job: Job, index: int) -> Iterator[str]:
    """Someone else's process on the device is the commonest reason for running out of memory."""
    import torch

    free, total = torch.cuda.mem_get_info(index)
    if job.prediction.device_used_bytes > free:
        need = job.prediction.device_used_bytes / GIB
        yield f"device {index} has {free / GIB:.1f} of {total / GIB:.1f} GiB free, the plan needs {need:.1f} GiB"
