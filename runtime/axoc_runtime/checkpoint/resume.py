"""Going on from the newest checkpoint whose files are as they were written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from axoc_runtime.checkpoint.keep import clear_unfinished, set_aside
from axoc_runtime.checkpoint.manifest import Manifest, read_manifest
from axoc_runtime.checkpoint.together import damage_together
from axoc_runtime.errors import EXIT_INPUTS, RuntimeFailure
from axoc_runtime.job import Job
from axoc_runtime.strategies import barrier, rank


def checkpoint_to_load(job: Job, trainer: Any, found: list[Path]) -> str:
    """On every rank, once the process group is there: the folder for ``Trainer.train``. ``found``: newest first, of this job."""
    checkpoint, manifest = newest_whole(found)
    if rank() == 0:
        clear_unfinished(job.output)
        print(f"axoc: resuming from {checkpoint}{_regrouped(job, manifest)}", flush=True)
    trainer.regrouped = manifest.world_size != job.distributed.world_size
    if trainer.regrouped and job.distributed.strategy.startswith("zero"):
        from axoc_runtime.checkpoint.universal import expect_universal, regroup

        expect_universal(trainer)
        return str(regroup(job, checkpoint))
    return str(checkpoint)


def newest_whole(found: list[Path]) -> tuple[Path, Manifest]:
    """Damaged ones that are newer are set aside, each with a line. Raises RuntimeFailure where all are damaged."""
    damaged: dict[Path, str] = {}
    for path in found:
        manifest = read_manifest(path)
        lines = ["its manifest is gone"] if manifest is None else damage_together(path, manifest)
        if manifest is not None and not lines:
            _set_aside(damaged)
            return path, manifest
        damaged[path] = lines[0] + (f", and {len(lines) - 1} more" if len(lines) > 1 else "")
    reasons = "; ".join(f"{path} is damaged: {why}" for path, why in damaged.items())
    fix = "bring back a whole copy of one of them, or start anew with --fresh"
    raise RuntimeFailure(f"no checkpoint is left to go on from: {reasons}", EXIT_INPUTS, fix)


def _set_aside(damaged: dict[Path, str]) -> None:
    barrier()  # no rank may still be reading them
    if rank() == 0:
        for path, why in damaged.items():
            print(f"axoc: {path} is damaged: {why}; it is now {set_aside(path).name}", flush=True)
    barrier()


def _regrouped(job: Job, manifest: Manifest) -> str:
    if manifest.world_size == job.distributed.world_size:
        return ""
    return f", written by {manifest.world_size} processes, with {job.distributed.world_size}"
