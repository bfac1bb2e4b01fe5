"""metrics.json: what was measured, and beside it what the plan had predicted."""

from __future__ import annotations

import importlib.metadata
import resource
import sys
from dataclasses import asdict
from typing import Any

import torch
import torch.distributed as dist

from axoc_runtime import __version__
from axoc_runtime.job import Job
from axoc_runtime.objectives.registry import objective_of

VERSIONED = ("torch", "transformers", "accelerate", "peft", "deepspeed", "datasets")


def measured(
    job: Job, trainer: Any, timing: Any, before: dict[str, float] | None, after: dict[str, float] | None
) -> dict[str, Any]:
    """Collective: tokens are summed over ranks, memory is the fullest rank's."""
    seconds = max(timing.total_seconds, 1e-9)
    tokens, padded = _over_ranks([trainer.tokens_seen, trainer.padded_tokens_seen], dist.ReduceOp.SUM)
    allocated, reserved, used, host = _over_ranks(memory_bytes(job), dist.ReduceOp.MAX)
    return {
        "schema_version": 1,
        "name": job.name,
        "spec_digest": job.spec_digest,
        **quality(job, before, after),
        "tokens_per_second": tokens / seconds,
        "padded_tokens_per_second": padded / seconds,
        "mfu": mfu(job, tokens / seconds),
        "step_seconds": timing.median_seconds,
        "input_wait_share": _share(trainer.waited.total, seconds),
        "batch_fill": _filled(job, padded, len(timing.steps)),
        "steps": trainer.state.global_step,
        "steps_this_run": len(timing.steps),
        "best_step": trainer.state.best_global_step if trainer.args.load_best_model_at_end else None,
        "epochs": trainer.state.epoch,
        "peak_allocated_bytes": int(allocated),
        "peak_reserved_bytes": int(reserved),
        "device_used_bytes": int(used),
        "peak_host_bytes_per_process": int(host),
        "device": job.distributed.device,
        "accelerator": job.expect.accelerator,
        "world_size": job.distributed.world_size,
        "strategy": job.distributed.strategy,
        "predicted": asdict(job.prediction),
        "versions": versions(),
    }


def _share(waited_seconds: float, step_seconds: float) -> float:
    """Of this rank's training time, evaluation and saving aside, that the device had no batch to work on."""
    return waited_seconds / (waited_seconds + step_seconds)


def quality(job: Job, before: dict[str, float] | None, after: dict[str, float] | None) -> dict[str, float | str | None]:
    """The objective's figures on the held-out rows, and which of them is the headline; None where nothing is held out."""
    found: dict[str, float | str | None] = {"headline": objective_of(job).figures[0].name}
    for figure in objective_of(job).figures:
        found |= {f"{figure.name}_before": None, f"{figure.name}_after": None}
        if before is not None and after is not None:
            found |= {f"{figure.name}_before": before.get(figure.name), f"{figure.name}_after": after.get(figure.name)}
    return found


def _filled(job: Job, padded_tokens: float, steps: int) -> float | None:
    """Tokens of the batches, padding included, as a share of the full rows that the plan counts."""
    rows = steps * job.training.global_batch_size * objective_of(job).sequences_per_row
    full = rows * max(d.max_seq_length for d in job.datasets)
    return padded_tokens / full if full else None


def mfu(job: Job, tokens_per_second: float) -> float | None:
    """Model FLOPs utilization at this rate of real tokens. A token's FLOPs and the device's peak are the plan's, whose rows are
    full: attention over shorter ones takes a little less. None where the plan knows no peak, as of a CPU."""
    planned = job.prediction
    if planned.mfu is None or planned.tokens_per_second <= 0:
        return None
    return planned.mfu * tokens_per_second / planned.tokens_per_second


def memory_bytes(job: Job) -> list[float]:
    """[allocated, reserved, used on the device, host]. On a CPU the device is the host: resident bytes for all."""
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if job.distributed.device == "cpu":
        return [host, host, host, host]
    free, total = torch.cuda.mem_get_info()
    return [torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved(), total - free, host]


def _over_ranks(values: list[float], operation: Any) -> list[float]:
    if not dist.is_initialized():
        return values
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    together = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(together, op=operation)
    return [float(v) for v in together]


def versions() -> dict[str, str]:
    found = {"axoc-runtime": __version__, "python": sys.version.split()[0]}
    for name in VERSIONED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
