"""DeepSpeed's settings as far as memory depends on them, and what its three stages have in common.

The engine itself is not run: it looks for devices, reads numbers off tensors and compiles. What it allocates is done
here in its order, from its sources: deepspeed 0.19.8, runtime/engine.py, runtime/zero/*.py.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

import torch

from axoc_runtime.errors import EXIT_INPUTS, RuntimeFailure
from axoc_runtime.job import Job
from axoc_runtime.trace.strategy import Strategy

DEFAULTS: Final[dict[str, Any]] = {
    "reduce_bucket_size": 500_000_000,
    "round_robin_gradients": False,
    "contiguous_gradients": True,
    "reduce_scatter": True,
    "sub_group_size": 1_000_000_000,
    "stage3_prefetch_bucket_size": 50_000_000,
    "stage3_param_persistence_threshold": 100_000,
    "stage3_max_live_parameters": 1_000_000_000,
    "stage3_max_reuse_distance": 1_000_000_000,
}
"""runtime/zero/config.py."""


@dataclass(frozen=True, kw_only=True)
class ZeroSettings:
    """Sizes are in elements."""

    stage: int
    reduce_bucket: int
    overlap: bool
    sub_group: int
    prefetch: int
    persistence: int
    max_live: int
    max_reuse: int
    leaf_classes: tuple[str, ...]
    offloads: bool


def zero_settings(job: Job, hidden_size: int) -> ZeroSettings:
    """From the bundle's configuration file; DeepSpeed's defaults where it has none. ``auto`` is what transformers makes
    of it (integrations/deepspeed.py, trainer_config_finalize). Raises RuntimeFailure for what is not modelled."""
    stage = int(job.distributed.strategy.removeprefix("zero"))
    given = read_config(job).get("zero_optimization", {})
    automatic = {
        "reduce_bucket_size": hidden_size * hidden_size,
        "stage3_prefetch_bucket_size": int(0.9 * hidden_size * hidden_size),
        "stage3_param_persistence_threshold": 10 * hidden_size,
    }
    values = {k: automatic.get(k, d) if given.get(k) == "auto" else given.get(k, d) for k, d in DEFAULTS.items()}
    for key in ("contiguous_gradients", "reduce_scatter", "round_robin_gradients"):
        offloaded_order = key == "round_robin_gradients" and job.distributed.offload != "none"
        if values[key] != DEFAULTS[key] and not offloaded_order:
            fix = f"leave {key} at its default, {json.dumps(DEFAULTS[key])}, or plan without a trace"
            raise RuntimeFailure(f"ZeRO with {key}: {values[key]} cannot be traced", EXIT_INPUTS, fix)
    overlap = given.get("overlap_comm")
    return ZeroSettings(
        stage=stage,
        reduce_bucket=int(values["reduce_bucket_size"]),
        overlap=stage == 3 if overlap in (None, "auto") else bool(overlap),
        sub_group=int(values["sub_group_size"]),
        prefetch=int(values["stage3_prefetch_bucket_size"]),
        persistence=int(values["stage3_param_persistence_threshold"]),
        max_live=int(values["stage3_max_live_parameters"]),
        max_reuse=int(values["stage3_max_reuse_distance"]),
        leaf_classes=tuple((given.get("leaf_module") or {}).get("classes", ())),
        offloads=job.distributed.offload != "none",
    )


def read_config(job: Job) -> dict[str, Any]:
    if job.distributed.config is None:
        return {}
    path = job.bundle_dir / job.distributed.config
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        fix = "trace inside the bundle, or with the file beside job.json"
        raise RuntimeFailure(
            f"{path}: cannot be read as DeepSpeed's configuration: {error}", EXIT_INPUTS, fix
        ) from None
    return dict(value)


def module_dtype(job: Job) -> torch.dtype:
    """DeepSpeed turns the whole module into the dtype that is enabled (engine.py, _configure_distributed_model)."""
    mixed = {"bf16": "bfloat16", "fp16": "float16"}.get(job.distributed.autocast, job.model.dtype)
    return {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(mixed, torch.float32)


class Zero(Strategy):
    """What the stages share: the module's dtype, no autocast, no conversion of outputs, norms in fp64."""

    lowers = False
    steps_alike = False  # what is fetched ahead is learned from earlier passes

    def weights_dtype(self) -> torch.dtype | None:
        return module_dtype(self.job)

    def configure(self, model: Any) -> None:
        self.world = self.job.distributed.data_parallel
        self.settings = zero_settings(self.job, int(model.config.get_text_config().hidden_size))

    def clip(self, gradient: torch.Tensor) -> None:
        """unscale_and_clip_grads"""
        if self.job.training.max_grad_norm > 0:
            gradient.mul_(1.0 / torch.clamp(torch.ones(()), min=1.0))


def norm_of(gradients: list[torch.Tensor]) -> torch.Tensor:
    """get_grad_norm_direct: each gradient is copied to fp64, one after the other."""
    return torch.stack([torch.linalg.vector_norm(g.detach().to(torch.float64)) for g in gradients]).pow(2).sum().float()


def flat(tensors: list[torch.Tensor]) -> torch.Tensor:
    """_flatten_dense_tensors: a single tensor is not copied."""
    return (
        tensors[0].contiguous().view(-1) if len(tensors) == 1 else torch.cat([t.contiguous().view(-1) for t in tensors])
    )
