"""A checkpoint counts once all ranks have written their part: a marker is written last."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from axoc_runtime.errors import EXIT_INPUTS, RuntimeFailure
from axoc_runtime.job import Job
from axoc_runtime.strategies import barrier, rank


def resume_key(job: Job) -> str:
    """What must be the same for a checkpoint to be gone on from. Lengths and rates may change."""
    same = {
        "model": asdict(job.model),
        "adapter": None if job.adapter is None else asdict(job.adapter),
        "datasets": [asdict(d) for d in job.datasets],
        "objective": job.training.objective,
        "optimizer": job.training.optimizer,
        "global_batch_size": job.training.global_batch_size,
        "seed": job.training.seed,
        "strategy": job.distributed.strategy,
        "world_size": job.distributed.world_size,
    }
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()


MARKER = ".axoc-complete"
FOLDER = re.compile(r"checkpoint-(\d+)")


class MarkComplete(TrainerCallback):
    """After each save, when every rank is done, rank 0 marks the folder with the key of the job it is of."""

    def __init__(self, job: Job) -> None:
        self.key = resume_key(job)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        barrier()
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if rank() == 0 and folder.is_dir():
            (folder / MARKER).write_text(f"{self.key}\n", encoding="utf-8")


def complete(output: Path) -> list[Path]:
    """Complete checkpoints, the one with the most steps last; half-written ones are passed over."""
    if not output.is_dir():
        return []
    found = [(int(m[1]), p) for p in output.iterdir() if (m := FOLDER.fullmatch(p.name)) and (p / MARKER).is_file()]
    return [path for _, path in sorted(found)]


def newest_complete(job: Job) -> Path | None:
    """The checkpoint to go on from. Raises RuntimeFailure where the only ones there are of another job."""
    found = complete(job.output)
    own = [p for p in found if (p / MARKER).read_text(encoding="utf-8").strip() == resume_key(job)]
    if found and not own:
        message = f"{found[-1]} is of another job: its model, data, batch, seed or strategy differ from this bundle's"
        raise RuntimeFailure(message, EXIT_INPUTS, "set another output_dir and plan again, or start anew with --fresh")
    return own[-1] if own else None
