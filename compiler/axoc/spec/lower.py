"""Spec to PlanRequest: the same values as plain frozen dataclasses, in the compiler's own units."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any, cast

from axoc.ir.request import (
    AUTO,
    AdapterRequest,
    Auto,
    Checkpointing,
    DatasetRequest,
    DistributedRequest,
    ExportRequest,
    GrpoRequest,
    ModelRequest,
    Offload,
    PlanRequest,
    PolicyRequest,
    PreferenceRequest,
    QuantizationRequest,
    RewardRequest,
    SampleRequest,
    TargetRequest,
    TokenizerRequest,
    TrainingRequest,
)
from axoc.spec.adapter import Adapter
from axoc.spec.dataset import Dataset
from axoc.spec.distributed import Distributed
from axoc.spec.misc import Policy
from axoc.spec.model import Model
from axoc.spec.objective import Objective
from axoc.spec.parts import Part
from axoc.spec.preferences import BETAS, REFERENCED
from axoc.spec.quantization import Quantization
from axoc.spec.scalars import printable
from axoc.spec.spec import Spec
from axoc.spec.training import Training
from axoc.units import GIB

DEFAULT_EPOCHS = 1.0


def lower(spec: Spec, file: str, explicit: frozenset[str]) -> PlanRequest:
    """``explicit``: dotted names the user wrote. Changes no value."""
    return PlanRequest(
        name=spec.name or _stem(file),
        model=_model(spec.model),
        adapter=_adapter(spec.adapter),
        datasets=tuple(_dataset(d) for d in spec.dataset),
        training=_training(spec.training, adapted=spec.adapter is not None),
        eval_metrics=_once(spec.eval_metrics),
        distributed=_distributed(spec.distributed),
        export=ExportRequest(**_fields(spec.export)),
        tracking=_once(spec.tracking),
        output_dir=spec.output_dir,
        upload_to=spec.upload_to,
        logging_level=spec.logging_level,
        target=TargetRequest(**_fields(spec.target)),
        policy=lower_policy(spec.policy),
        samples=SampleRequest(**_fields(spec.samples)),
        inventory=spec.inventory,
        plugins=_once(spec.plugins),
        explicit=explicit,
    )


def _stem(file: str) -> str:
    return printable(PurePath(file).stem) or "spec"


def _fields(part: Part) -> dict[str, Any]:
    """The part's values by field name, as they are: parts inside it stay parts."""
    return {name: getattr(part, name) for name in type(part).model_fields}


def _once(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _model(model: Model) -> ModelRequest:
    tokenizer = _fields(model.tokenizer) | {"added_tokens": _once(model.tokenizer.added_tokens)}
    changed = {"quantization": _quantization(model.quantization), "tokenizer": TokenizerRequest(**tokenizer)}
    return ModelRequest(**{**_fields(model), **changed})


def _quantization(wanted: Quantization | str | None) -> QuantizationRequest | Auto | None:
    if isinstance(wanted, Quantization):
        made = {"method": wanted.method, "double_quantization": wanted.double_quantization}
        return QuantizationRequest(**cast(dict[str, Any], made), options=wanted.options)
    return AUTO if wanted == AUTO else None


def _adapter(adapter: Adapter | None) -> AdapterRequest | None:
    return None if adapter is None else AdapterRequest(**_fields(adapter))


def _dataset(dataset: Dataset) -> DatasetRequest:
    return DatasetRequest(**_fields(dataset))


def _training(training: Training, *, adapted: bool) -> TrainingRequest:
    """With neither epochs nor max_steps, one epoch."""
    unbounded = training.epochs is None and training.max_steps is None
    changed = {
        "epochs": DEFAULT_EPOCHS if unbounded else training.epochs,
        "gradient_checkpointing": cast(Checkpointing | Auto, training.gradient_checkpointing),
        "preference": _preference(training, adapted),
        "grpo": _grpo(training, adapted),
    }
    return TrainingRequest(**{**_fields(training), **changed})


def _preference(training: Training, adapted: bool) -> PreferenceRequest | None:
    objective, wanted = training.objective, training.preference
    if objective not in BETAS:
        return None
    values = _fields(wanted)
    precomputed = values.pop("precompute_reference")
    reference = "none"
    if objective in REFERENCED:
        reference = "precomputed" if precomputed else _reference(adapted)
    beta = BETAS[objective] if wanted.beta == AUTO else float(wanted.beta)
    return PreferenceRequest(**{**values, "beta": beta}, reference=reference)


def _reference(adapted: bool) -> str:
    """With its adapter switched off a model is what it began as."""
    return "adapter" if adapted else "model"


def _grpo(training: Training, adapted: bool) -> GrpoRequest | None:
    if training.objective != "grpo":
        return None
    wanted = training.grpo
    rewards = tuple(RewardRequest(**_fields(r)) for r in wanted.rewards)
    reference = _reference(adapted) if wanted.beta > 0 else "none"
    return GrpoRequest(**{**_fields(wanted), "rewards": rewards}, reference=reference)


def lower_policy(policy: Policy) -> PolicyRequest:
    """The clauses, and what steers the planner."""
    wanted = policy.objective
    objective = {"objective": "trade-off", "usd_per_hour": wanted.usd_per_hour} if isinstance(wanted, Objective) else {}
    return PolicyRequest(**_fields(policy) | objective)


def _distributed(distributed: Distributed) -> DistributedRequest:
    budget = distributed.memory_budget_per_gpu_gb
    return DistributedRequest(
        type=distributed.type,
        gpu_count=distributed.gpu_count,
        model_parallel_size=cast(int | Auto, distributed.model_parallel_size),
        replicate_degree=cast(int | Auto, distributed.replicate_degree),
        min_unit_parameters=cast(int | Auto, distributed.min_unit_parameters),
        mixed_precision=distributed.mixed_precision,
        memory_budget_per_gpu_bytes=None if budget is None else int(budget * GIB),
        offload=cast(Offload | Auto, distributed.offload),
        config_path=distributed.config_path,
    )
