"""`preflight`: is this the machine the plan was made for? Every difference at once, before anything is paid for."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from axoc_runtime.errors import EXIT_ENVIRONMENT, EXIT_PREFLIGHT, RuntimeFailure
from axoc_runtime.exports.request import missing_packages, requests_of
from axoc_runtime.job import Job
from axoc_runtime.upload.commands import preflight as store_preflight

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
HOSTED_TRACKERS: Final = ("wandb", "mlflow")
"""No lock pins them."""


def run(job: Job) -> None:
    """Raises RuntimeFailure: 11 where the environment lacks a package, 12 where the machine is another one."""
    if missing := [name for name in packages(job) if importlib.util.find_spec(name) is None]:
        fix = "run launch.sh without --no-install, or install what requirements.lock pins"
        if "flash_attn" in missing:  # built for one torch and one CUDA: no lock pins it
            fix = "set model.attention: sdpa and plan again, or install flash-attn for this torch and use --no-install"
        if hosted := [t for t in missing if t in HOSTED_TRACKERS]:  # clients of services: only who asks for one has it
            fix = f"take {', '.join(hosted)} out of tracking and plan again, or install it and use --no-install"
        raise RuntimeFailure(f"not installed: {', '.join(missing)}", EXIT_ENVIRONMENT, fix)
    store_preflight(job)
    checks: list[Callable[[Job], Iterator[str]]] = [_model, _devices, _host_memory, _disk, _output]
    problems = [p for check in checks for p in check(job)]
    if problems:
        lines = "\n".join(["this machine is not what the plan was made for:", *(f"  {p}" for p in problems)])
        raise RuntimeFailure(
            lines, EXIT_PREFLIGHT, "plan again for it: axoc inventory > here.yaml; axoc plan --inventory here.yaml"
        )
    print(f"axoc: {job.distributed.processes_per_node} x {job.expect.accelerator} as planned", flush=True)


def packages(job: Job) -> list[str]:
    """What this job imports."""
    needed = ["torch", "transformers", "accelerate", "datasets", "safetensors", "rich"]
    needed += ["peft"] if job.adapter is not None else []
    needed += ["deepspeed"] if job.distributed.strategy.startswith("zero") else []
    needed += ["flash_attn"] if job.model.attention == "flash_attention_2" else []
    needed += ["liger_kernel"] if job.model.kernels == "liger" else []
    needed += ["bitsandbytes"] if job.model.quantization is not None or job.training.optimizer.endswith("8bit") else []
    needed += [t for t in job.tracking if t in ("tensorboard", *HOSTED_TRACKERS)]
    needed += ["rouge_score"] if any(m.startswith("rouge") for m in job.eval_metrics) else []
    needed += ["gguf"] if (job.model.id or "").endswith(".gguf") else []
    needed += [p for packages in missing_packages(requests_of(job)).values() for p in packages]
    return needed


def _model(job: Job) -> Iterator[str]:
    """A model that was to be here. One of the hub is left to the load, which says what it cannot reach."""
    source = Path(job.model_source())
    if not source.is_absolute() and (job.model.id or "").count("/") != 1:
        yield f"the model {job.model.id} is not here: no such folder {job.resolve(job.model.id or '')}"
    if source.is_dir() and not list(source.glob("*.safetensors")):
        yield f"the model's folder {source} holds no safetensors"


def _devices(job: Job) -> Iterator[str]:
    if job.distributed.device == "cpu":
        return
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


def _host_memory(job: Job) -> Iterator[str]:
    available = host_memory_available_bytes()
    if available is not None and job.expect.host_bytes > available:
        need = job.expect.host_bytes / GIB
        yield f"{available / GIB:.1f} GiB of host memory are available, the plan needs {need:.1f} GiB on each node"


def host_memory_available_bytes() -> int | None:
    """As the kernel estimates it, within this process's control group; None where neither tells."""
    limits = [_meminfo(), _cgroup_room()]
    known = [limit for limit in limits if limit is not None]
    return min(known) if known else None


def _meminfo() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _cgroup_room() -> int | None:
    """Version 2's limit less what is used, page cache not counted."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text(encoding="ascii").strip()
        used = int((folder / "memory.current").read_text(encoding="ascii"))
        stat = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else int(limit) - used + int(stat.get("file", 0))


def _disk(job: Job) -> Iterator[str]:
    """Free space where the run writes; what an earlier run of this job left there is replaced, so it counts as free."""
    folder = next(p for p in (job.output, *job.output.parents) if p.is_dir())
    free = shutil.disk_usage(folder).free
    if job.expect.disk_bytes > free:
        yield f"{free / GIB:.1f} GiB are free in {folder}, the run needs {job.expect.disk_bytes / GIB:.1f} GiB"


def _output(job: Job) -> Iterator[str]:
    folder = next(p for p in (job.output, *job.output.parents) if p.exists())
    if not folder.is_dir():
        yield f"the output folder {job.output} cannot be made: {folder} is a file"
    elif not os.access(folder, os.W_OK):
        yield f"the output folder {job.output} cannot be written"
