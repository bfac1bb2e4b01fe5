"""Which checkpoints there are, and which of them a job may go on from."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from axoc_runtime.checkpoint.manifest import MARKER, Manifest, read_manifest
from axoc_runtime.errors import EXIT_INPUTS, RuntimeFailure
from axoc_runtime.job import Job

__all__ = ["MARKER", "candidates", "complete", "refusal", "resume_key"]

FOLDER: Final = re.compile(r"checkpoint-(\d+)")
FIX: Final = "plan with the same values, or set another output_dir, or start anew with --fresh"


AS_IT_COMES: Final = {
    "source": None, "type": None, "chat_template": None, "added_tokens": (), "embedding_rows": None,
}  # fmt: skip


def resume_key(job: Job) -> dict[str, Any]:
    """What must be equal to go on: what is trained, on which rows, in which precision. Lengths, rates, micro-batch,
    kernels, attention and recomputation may change: they alter neither the rows of a step nor the files."""
    model, training = job.model, job.training
    return {
        "model.id": model.id,
        "model.revision": model.revision,
        "model.dtype": model.dtype,
        "model.quantization": None if model.quantization is None else asdict(model.quantization),
        "model.tokenizer": None if asdict(job.model.tokenizer) == AS_IT_COMES else job.to_dict()["model"]["tokenizer"],
        "adapter": None if job.adapter is None else _trained(job.to_dict()["adapter"]),
        "dataset": [asdict(d) for d in job.datasets],
        "training.objective": training.objective,
        "training.optimizer": training.optimizer,
        "training.global_batch_size": training.global_batch_size,
        "training.seed": training.seed,
        "distributed.mixed_precision": job.distributed.mixed_precision,
        "distributed.model_parallel_size": job.distributed.tensor_parallel,
    }


def _trained(adapter: dict[str, Any]) -> dict[str, Any]:
    """How it is computed changes nothing of what is trained, and depends on the strategy."""
    return {key: value for key, value in adapter.items() if key not in ("casts_inputs", "scales_between")}


def complete(output: Path) -> list[Path]:
    """Complete checkpoints, the one with the most steps last; what is half-written has another name or no marker."""
    if not output.is_dir():
        return []
    found = [(int(m[1]), p) for p in output.iterdir() if (m := FOLDER.fullmatch(p.name)) and read_manifest(p)]
    return [path for _, path in sorted(found)]


def candidates(job: Job) -> list[Path]:
    """The checkpoints to go on from, the newest first. Raises RuntimeFailure where there are some, but none for this job."""
    found, refused = [], []
    for path in reversed(complete(job.output)):
        manifest = read_manifest(path)
        assert manifest is not None
        reason = refusal(job, manifest)
        if reason is None:
            found.append(path)
        else:
            refused.append(f"{path} cannot be resumed by this bundle: {reason}")
    if refused and not found:
        raise RuntimeFailure(refused[0], EXIT_INPUTS, FIX)
    return found


def refusal(job: Job, manifest: Manifest) -> str | None:
    """Why this job may not go on from it; None where it may."""
    here = resume_key(job)
    differ = [f"{k} was {manifest.same.get(k)}, is {v}" for k, v in here.items() if manifest.same.get(k) != v]
    if differ:
        return "; ".join(differ)
    strategy, processes = job.distributed.strategy, job.distributed.world_size
    if strategy == manifest.strategy and processes == manifest.world_size:
        return None
    contract = manifest.resume
    if strategy not in contract["strategies"]:
        kept = " or ".join(contract["strategies"])
        return f"it was written by {manifest.strategy}, which only {kept} reads: set distributed.type: {manifest.strategy}, not {strategy}"
    if processes not in contract["world_sizes"]:
        legal = ", ".join(map(str, contract["world_sizes"]))
        return f"it goes on with {legal} processes, the plan has {processes}: {contract['because']}"
    return None
