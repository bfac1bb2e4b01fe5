"""One host by itself: what it has, and where that is not what the plan was made for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from axoc_runtime.errors import EXIT_INPUTS, EXIT_PREFLIGHT, RuntimeFailure
from axoc_runtime.exports.foresee import foreseen
from axoc_runtime.failure.occupied import FIX as OCCUPIED_FIX
from axoc_runtime.failure.occupied import occupant
from axoc_runtime.hosts.place import host_name
from axoc_runtime.job import Job
from axoc_runtime.preflight.architecture import check_architecture
from axoc_runtime.preflight.devices import GIB, REPLAN, check_devices, device_names, driver_version
from axoc_runtime.preflight.finding import Finding
from axoc_runtime.preflight.folder import bundle_digest
from axoc_runtime.preflight.memory import host_memory_available_bytes
from axoc_runtime.preflight.packages import check_packages, versions
from axoc_runtime.upload.commands import preflight as store_preflight


@dataclass(frozen=True)
class NodeFacts:
    """What a host tells the others."""

    host: str
    devices: tuple[str, ...]
    driver: str | None
    versions: dict[str, str]
    bundle: str
    memory_bytes: int | None
    """Of the host, available."""
    disk_bytes: int
    """Free where the run writes."""
    findings: tuple[Finding, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def of(value: dict[str, Any]) -> NodeFacts:
        """From what was sent."""
        findings = tuple(Finding(**f) for f in value["findings"])
        return NodeFacts(**value | {"devices": tuple(value["devices"]), "findings": findings})


def look(job: Job, *, first: bool) -> NodeFacts:
    """``first``: the node that speaks to the store, and keeps the output folder for one run."""
    findings = list(check_packages(job))
    checks = CHECKS if not any(f.code for f in findings) else tuple(c for c in CHECKS if c not in NEEDING_PACKAGES)
    findings += [f for check in checks for f in check(job)]
    if usable := checks is CHECKS:
        fix = "take these formats out of export.formats and plan again"
        findings += [Finding(EXIT_INPUTS, told, fix) for told in foreseen(job)]
    findings += [*_occupied(job), *_store(job)] if first else []
    return NodeFacts(
        host=host_name(),
        devices=tuple(device_names(job)) if usable else (),
        driver=driver_version(),
        versions=versions(job),
        bundle=bundle_digest(job),
        memory_bytes=host_memory_available_bytes(),
        disk_bytes=shutil.disk_usage(_existing(job.output, Path.is_dir)).free,
        findings=tuple(findings),
    )


def _occupied(job: Job) -> list[Finding]:
    told = occupant(job)
    return [] if told is None else [Finding(EXIT_PREFLIGHT, told, OCCUPIED_FIX)]


def _store(job: Job) -> list[Finding]:
    try:
        store_preflight(job)
    except RuntimeFailure as failure:
        return [Finding(failure.exit_code, str(failure), failure.fix or "")]
    return []


def _check_model(job: Job) -> Iterator[Finding]:
    """A model that was to be here. One of the hub is left to the load, which says what it cannot reach."""
    source, wanted = Path(job.model_source()), job.model.id or ""
    if not source.is_absolute() and wanted.count("/") != 1:
        told = f"the model {wanted} is not here: no such folder {job.resolve(wanted)}"
        yield Finding(EXIT_PREFLIGHT, told, "put it there, or set model.id and plan again")
    if source.is_dir() and not list(source.glob("*.safetensors")):
        fix = "save it as safetensors there, or set model.id and plan again"
        yield Finding(EXIT_PREFLIGHT, f"the model's folder {source} holds no safetensors", fix)


def _check_host_memory(job: Job) -> Iterator[Finding]:
    available = host_memory_available_bytes()
    if available is not None and job.expect.host_bytes > available:
        need = job.expect.host_bytes / GIB
        told = f"{available / GIB:.1f} GiB of host memory are available, the plan needs {need:.1f} GiB on each node"
        yield Finding(EXIT_PREFLIGHT, told, f"end what else runs here, or {REPLAN}")


def _check_disk(job: Job) -> Iterator[Finding]:
    """Free space where the run writes; what an earlier run of this job left there is replaced, so it counts as free."""
    folder = _existing(job.output, Path.is_dir)
    free = shutil.disk_usage(folder).free
    if job.expect.disk_bytes > free:
        told = f"{free / GIB:.1f} GiB are free in {folder}, the run needs {job.expect.disk_bytes / GIB:.1f} GiB"
        yield Finding(EXIT_PREFLIGHT, told, "make room there, or set output_dir to a larger disk")


def _check_output(job: Job) -> Iterator[Finding]:
    folder, fix = _existing(job.output, Path.exists), "set output_dir to a folder that can be written"
    if not folder.is_dir():
        yield Finding(EXIT_PREFLIGHT, f"the output folder {job.output} cannot be made: {folder} is a file", fix)
    elif not os.access(folder, os.W_OK):
        yield Finding(EXIT_PREFLIGHT, f"the output folder {job.output} cannot be written", fix)


def _existing(path: Path, how: Callable[[Path], bool]) -> Path:
    return next(p for p in (path, *path.parents) if how(p))


CHECKS: Final = (_check_model, check_architecture, check_devices, _check_host_memory, _check_disk, _check_output)
NEEDING_PACKAGES: Final = (check_architecture, check_devices)
