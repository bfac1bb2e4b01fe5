"""DeepSpeed's configuration as a typed model: complete, nothing ``auto``, equal to the Trainer's arguments.

transformers compares batch sizes, clipping and precision with its own arguments and stops on a difference
(integrations/deepspeed.py), so every shared value is written from the same plan that job.json is written from.
Bucket sizes come from ``cost.buckets``: DeepSpeed allocates them whole, so they must be those the plan was costed with.
There is no optimizer block: the Trainer makes the optimizer, hence ``zero_allow_untested_optimizer``.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Final

from axoc.cost.buckets import GATHER_ELEMENTS, LIVE_ELEMENTS, persistence_threshold_elements, reduce_bucket_elements
from axoc.emit.moe import leaf_module_class
from axoc.emit.placement import placement
from axoc.ir.candidate import Candidate
from axoc.ir.plan import Plan

NEVER: Final = 2**31 - 1
"""Steps between DeepSpeed's own log lines: the Trainer logs."""


@dataclass(frozen=True, kw_only=True)
class Offload:
    device: str
    pin_memory: bool
    """Pinned memory is what makes copies overlap; without an accelerator it cannot be pinned."""


@dataclass(frozen=True, kw_only=True)
class LeafModule:
    classes: tuple[str, ...]
    """Modules gathered whole: their inner order differs from rank to rank (experts), which would hang ZeRO-3."""


@dataclass(frozen=True, kw_only=True)
class ZeroOptimization:
    stage: int
    reduce_bucket_size: int
    overlap_comm: bool
    """Only for stage 3. For 1 and 2 it raced with the copies into the bucket (DeepSpeed issue 8061: NaN)."""
    contiguous_gradients: bool = True
    allgather_partitions: bool | None = None
    reduce_scatter: bool = True
    allgather_bucket_size: int | None = None
    round_robin_gradients: bool | None = None
    offload_optimizer: Offload | None = None
    offload_param: Offload | None = None
    sub_group_size: int | None = None
    stage3_prefetch_bucket_size: int | None = None
    stage3_param_persistence_threshold: int | None = None
    stage3_max_live_parameters: int | None = None
    stage3_max_reuse_distance: int | None = None
    stage3_gather_16bit_weights_on_model_save: bool | None = None
    """Without it ZeRO-3 saves empty tensors (transformers issue 20082)."""
    leaf_module: LeafModule | None = None


@dataclass(frozen=True, kw_only=True)
class Bf16:
    enabled: bool


@dataclass(frozen=True, kw_only=True)
class Fp16:
    enabled: bool
    auto_cast: bool | None = None
    loss_scale: int | None = None
    """0 is a dynamic scale."""
    initial_scale_power: int | None = None
    loss_scale_window: int | None = None
    hysteresis: int | None = None
    min_loss_scale: int | None = None


@dataclass(frozen=True, kw_only=True)
class TensorParallel:
    autotp_size: int


@dataclass(frozen=True, kw_only=True)
class DeepSpeedConfig:
    """Invariant (DeepSpeed checks it): train_batch_size = micro x accumulation x data-parallel ranks."""

    train_batch_size: int
    train_micro_batch_size_per_gpu: int
    gradient_accumulation_steps: int
    gradient_clipping: float
    bf16: Bf16
    fp16: Fp16
    zero_optimization: ZeroOptimization
    tensor_parallel: TensorParallel | None = None
    zero_allow_untested_optimizer: bool = True
    zero_force_ds_cpu_optimizer: bool = False
    """True would compile DeepSpeed's CPU Adam, which needs a CUDA compiler that matches torch (DeepSpeed 3223)."""
    steps_per_print: int = NEVER
    wall_clock_breakdown: bool = False

    def as_dict(self) -> dict[str, Any]:
        plain: dict[str, Any] = _without_none(self)
        return plain


def deepspeed_config(plan: Plan) -> DeepSpeedConfig:
    """The configuration of a ``zero*`` plan."""
    chosen = plan.chosen.candidate
    return DeepSpeedConfig(
        train_batch_size=chosen.global_batch_size,
        train_micro_batch_size_per_gpu=chosen.micro_batch_size,
        gradient_accumulation_steps=chosen.gradient_accumulation_steps,
        gradient_clipping=float(plan.request.training.max_grad_norm),
        bf16=Bf16(enabled=uses_bf16(chosen)),
        fp16=_fp16(chosen),
        zero_optimization=_zero(plan),
        tensor_parallel=TensorParallel(autotp_size=chosen.tensor_parallel) if chosen.tensor_parallel > 1 else None,
    )


def uses_bf16(candidate: Candidate) -> bool:
    """fp32 weights under bf16 mixed precision, or bf16 weights: DeepSpeed holds bf16 weights and fp32 masters of both.

    fp8 recipes run on top of bf16. bf16 weights with ``mixed_precision: no`` still need it: DeepSpeed refuses a
    module whose dtype is not the enabled one.
    """
    if candidate.mixed_precision in ("bf16", "fp8"):
        return True
    return candidate.mixed_precision == "no" and candidate.dtype == "bfloat16"


def _fp16(candidate: Candidate) -> Fp16:
    half_weights = candidate.mixed_precision == "no" and candidate.dtype == "float16"
    if candidate.mixed_precision != "fp16" and not half_weights:
        return Fp16(enabled=False)
    return Fp16(
        enabled=True,
        auto_cast=True,
        loss_scale=0,
        initial_scale_power=16,
        loss_scale_window=1000,
        hysteresis=2,
        min_loss_scale=1,
    )


def _zero(plan: Plan) -> ZeroOptimization:
    chosen = plan.chosen.candidate
    stage = int(chosen.strategy.removeprefix("zero"))
    if stage == 3:
        return _stage3(plan)
    return ZeroOptimization(
        stage=stage,
        reduce_bucket_size=reduce_bucket_elements(plan.model.hidden_size),
        overlap_comm=False,
        allgather_partitions=True,
        allgather_bucket_size=GATHER_ELEMENTS,
        round_robin_gradients=chosen.offload != "none",
        offload_optimizer=_offload(plan) if chosen.offload != "none" else None,
    )


def _stage3(plan: Plan) -> ZeroOptimization:
    chosen, hidden_size = plan.chosen.candidate, plan.model.hidden_size
    leaf = leaf_module_class(plan.model)
    return ZeroOptimization(
        stage=3,
        reduce_bucket_size=reduce_bucket_elements(hidden_size),
        overlap_comm=True,
        offload_optimizer=_offload(plan) if chosen.offload != "none" else None,
        offload_param=_offload(plan) if chosen.offload == "optimizer+parameters" else None,
        sub_group_size=LIVE_ELEMENTS,
        stage3_prefetch_bucket_size=GATHER_ELEMENTS,
        stage3_param_persistence_threshold=persistence_threshold_elements(hidden_size),
        stage3_max_live_parameters=LIVE_ELEMENTS,
        stage3_max_reuse_distance=LIVE_ELEMENTS,
        stage3_gather_16bit_weights_on_model_save=True,
        leaf_module=LeafModule(classes=(leaf,)) if leaf else None,
    )


def _offload(plan: Plan) -> Offload:
    return Offload(device="cpu", pin_memory=placement(plan).device == "cuda")


def _without_none(value: Any) -> Any:
    """A dataclass as a dict, without the fields that do not apply: DeepSpeed takes null for a value."""
    if is_dataclass(value) and not isinstance(value, type):
        named = ((f.name, getattr(value, f.name)) for f in fields(value))
        return {name: _without_none(item) for name, item in named if item is not None}
    return list(value) if isinstance(value, tuple) else value
