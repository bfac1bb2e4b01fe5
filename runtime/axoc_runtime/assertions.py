"""The plan, asserted on the wrapped model before the first step. Equal losses prove nothing: classes and shards do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from axoc_runtime.errors import EXIT_NOT_AS_PLANNED, RuntimeFailure
from axoc_runtime.job import Job
from axoc_runtime.kernels.float8 import Float8Linear
from axoc_runtime.models.architecture import unknown
from axoc_runtime.models.load import decoder_blocks
from axoc_runtime.models.recompute import recomputed
from axoc_runtime.strategies import world_size
from axoc_runtime.strategies.promised import Mismatch, fsdp_promises, full_size, share, zero_promises

WHOLE: Final = "modules_to_save"
ADAPTED: Final = ("lora_", WHOLE, "trainable_tokens")
"""In the names of what PEFT trains."""


def assert_plan(job: Job, trainer: Any) -> dict[str, Any]:
    """Raises RuntimeFailure (exit 16) naming every mismatch with both values. Returns what was checked."""
    checks: list[Callable[[Job, Any], Iterator[Mismatch]]] = [
        _world,
        _batch,
        _wrapper,
        _trainable,
        _dtypes,
        _shards,
        _checkpointing,
        _float8,
    ]
    found = [m for check in checks for m in check(job, trainer)]
    wrong = [m for m in found if m[1] != m[2]]
    if wrong:
        lines = "; ".join(f"{what}: planned {planned}, found {real}" for what, planned, real in wrong)
        raise RuntimeFailure(
            f"what runs is not what was planned: {lines}", EXIT_NOT_AS_PLANNED, "plan again with axoc plan"
        )
    return {what: real for what, _, real in found}


def _world(job: Job, _: Any) -> Iterator[Mismatch]:
    yield "world size", job.distributed.world_size, world_size()


def _batch(job: Job, trainer: Any) -> Iterator[Mismatch]:
    args, training = trainer.args, job.training
    yield "micro-batch", training.micro_batch_size, args.per_device_train_batch_size
    yield "gradient accumulation", training.gradient_accumulation_steps, args.gradient_accumulation_steps
    total = args.per_device_train_batch_size * args.gradient_accumulation_steps * job.distributed.data_parallel
    yield "global batch", training.global_batch_size, total


def _wrapper(job: Job, trainer: Any) -> Iterator[Mismatch]:
    """The class around the model, and for DeepSpeed its stage."""
    strategy, wrapped = job.distributed.strategy, trainer.model_wrapped
    names = {c.__name__ for c in type(wrapped).__mro__}
    real = next((n for n in ("DeepSpeedEngine", "FSDPModule", "DistributedDataParallel") if n in names), "none")
    planned = {"single": "none", "ddp": "DistributedDataParallel", "fsdp": "FSDPModule"}.get(
        strategy, "DeepSpeedEngine"
    )
    yield "wrapper", planned, real
    if strategy.startswith("zero") and real == "DeepSpeedEngine":
        yield "ZeRO stage", int(strategy[-1]), wrapped.zero_optimization_stage()
    if strategy == "fsdp" and real == "FSDPModule":
        sharded = [type(b).__name__.startswith("FSDP") for b in decoder_blocks(job, wrapped)]
        yield "blocks that are FSDP units", len(sharded), sum(sharded)


def _trainable(job: Job, trainer: Any) -> Iterator[Mismatch]:
    """Of an unknown architecture the plan could only guess the number: it is asserted what is trained, not how much."""
    trained = [(name, p) for name, p in trainer.model.named_parameters() if p.requires_grad]
    real = sum(full_size(p) for _, p in trained)
    if unknown(job):
        if job.adapter is None:
            every = sum(map(full_size, trainer.model.parameters()))  # a few may be constants of the architecture's own
            yield "share of the parameters that is trained", 1.0, share(real / every)
        else:
            others = sorted({name for name, _ in trained if not any(part in name for part in ADAPTED)})
            yield "trained parameters beside the adapter", [], others
            yield "an adapter is trained", True, bool(trained)
        return
    yield "trainable parameters", job.expect.trainable_parameters, real


def _dtypes(job: Job, trainer: Any) -> Iterator[Mismatch]:
    """Of what is trained. DeepSpeed holds the module in the mixed precision's dtype. Adapters are kept in float32, and what is
    trained whole beside them as it was loaded: PEFT copies such a module, and casts nothing but adapters."""
    trained = [(name, p) for name, p in trainer.model.named_parameters() if p.requires_grad]
    whole = [p for name, p in trained if job.adapter is not None and WHOLE in name]
    others = [p for name, p in trained if job.adapter is None or WHOLE not in name]
    planned = "float32" if job.adapter is not None else job.model.dtype
    copied = (
        job.model.dtype if job.model.quantization is None else "float32"
    )  # which k-bit preparation has raised it to
    if job.distributed.strategy.startswith("zero"):
        mixed = {"bf16": "bfloat16", "fp16": "float16"}.get(job.distributed.autocast)
        planned = mixed or ("bfloat16" if job.model.dtype == "bfloat16" else planned)
        copied = planned
    yield "dtype of trained weights", [planned], _dtypes_of(others)
    if whole:
        yield "dtype of modules that are trained whole", [copied], _dtypes_of(whole)


def _dtypes_of(parameters: list[Any]) -> list[str]:
    return sorted({str(p.dtype).removeprefix("torch.") for p in parameters})


def _shards(job: Job, trainer: Any) -> Iterator[Mismatch]:
    """What is sharded or offloaded is so, each rank with its share and no more."""
    if job.distributed.strategy == "fsdp":
        yield from fsdp_promises(job, trainer.model)
    if job.distributed.strategy.startswith("zero"):
        yield from zero_promises(job, trainer)


def _checkpointing(job: Job, trainer: Any) -> Iterator[Mismatch]:
    blocks = decoder_blocks(job, trainer.model)
    if not blocks:
        return
    found = [i for i, block in enumerate(blocks) if getattr(block, "gradient_checkpointing", False)]
    yield "blocks that recompute", recomputed(job, blocks), found
    planned = {"none": 0, "full": len(blocks)}.get(
        job.training.gradient_checkpointing, job.training.checkpointed_layers
    )
    yield "how many of them", planned, len(found)


def _float8(job: Job, trainer: Any) -> Iterator[Mismatch]:
    found = sum(isinstance(m, Float8Linear) for m in trainer.model.modules())
    yield "linear layers in float8", job.expect.float8_linears, found
