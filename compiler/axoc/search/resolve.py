"""Choices a rule can make before the search: each gives a value and its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from axoc.ir.facts import AcceleratorFacts, ModelFacts
from axoc.ir.plan import Decision
from axoc.ir.request import AUTO, PlanRequest, QuantizationRequest

IMITATING: Final = ("sft", "pretrain")
LIGER_FAMILIES: Final = frozenset(
    {"llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "gemma2", "gemma3", "phi3", "olmo2"}
)
"""Families liger-kernel 0.8 patches (liger_kernel/transformers/monkey_patch.py)."""


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """What one kind of accelerator leaves of the open choices."""

    attention: str
    kernels: str
    compile: bool
    packing: bool
    quantizations: tuple[str, ...]
    """To be searched, in order of preference."""
    optimizers: tuple[str, ...]
    """The same."""
    decisions: tuple[Decision, ...]


def resolve(request: PlanRequest, model: ModelFacts, accelerator: AcceleratorFacts) -> Resolved:
    attention = _attention(request, model)
    kernels = _kernels(request, model, accelerator)
    compile_ = _compile(request)
    packing = _packing(request)
    return Resolved(
        attention=str(attention.value),
        kernels=str(kernels.value),
        compile=bool(compile_.value),
        packing=bool(packing.value),
        quantizations=quantizations(request),
        optimizers=optimizers(request),
        decisions=(attention, kernels, compile_, packing),
    )


def quantizations(request: PlanRequest) -> tuple[str, ...]:
    """``auto`` prefers exact weights and falls back to nf4 where an adapter makes that possible."""
    wanted = request.model.quantization
    if wanted is None:
        return ("none",)
    if isinstance(wanted, QuantizationRequest):
        return (wanted.method,)
    return ("none", "nf4") if request.adapter is not None else ("none",)


def optimizers(request: PlanRequest) -> tuple[str, ...]:
    """``auto`` is AdamW with states of 32 or 8 bits."""
    wanted = request.training.optimizer
    return ("adamw_torch_fused", "adamw_bnb_8bit") if wanted == AUTO else (wanted,)


def _decision(request: PlanRequest, field: str, value: Any, because: str, rule: str) -> Decision:
    """The user's own value is kept as it is."""
    wanted: Any = request
    for part in field.split("."):
        wanted = getattr(wanted, part)
    if wanted != AUTO:
        return user_decision(request, field, wanted)
    return Decision(field=field, value=value, because=because, source=f"rule:{rule}")


def user_decision(request: PlanRequest, field: str, value: Any) -> Decision:
    if field in request.explicit:
        return Decision(field=field, value=value, because="set in the spec", source="user")
    return Decision(field=field, value=value, because="the spec's default", source="default")


def _attention(request: PlanRequest, model: ModelFacts) -> Decision:
    if model.attention_softcapping is not None:
        because = f"{model.family} caps its attention scores, which SDPA cannot do: eager does, at s x s memory a head"
        return _decision(request, "model.attention", "eager", because, "softcap-eager")
    because = "rows are not packed: SDPA's fused kernels need no mask and support grouped queries"
    return _decision(request, "model.attention", "sdpa", because, "unpacked-sdpa")


def _kernels(request: PlanRequest, model: ModelFacts, accelerator: AcceleratorFacts) -> Decision:
    if accelerator.vendor == "cpu":
        return _decision(request, "model.kernels", "none", "Liger's Triton kernels need a GPU", "liger-needs-gpu")
    if request.distributed.model_parallel_size not in (AUTO, 1):
        because = "Liger's kernels read weights whole, and tensor parallelism splits them"
        return _decision(request, "model.kernels", "none", because, "tensor-parallel-kernels")
    if request.training.objective not in IMITATING:
        because = f"objective {request.training.objective} makes its own loss, which Liger's would replace"
        return _decision(request, "model.kernels", "none", because, "preference-kernels")
    if model.family not in LIGER_FAMILIES:
        because = f"liger-kernel has no kernels for {model.family}"
        return _decision(request, "model.kernels", "none", because, "liger-families")
    logit_bytes = 12 * model.vocab_size / 1e6
    because = f"the fused loss saves {logit_bytes:.1f} MB of logits for every token of a micro-batch"
    return _decision(request, "model.kernels", "liger", because, "liger-families")


def _compile(request: PlanRequest) -> Decision:
    because = "compilation is chosen once its warm-up is part of the time model; until then it is left to you"
    return _decision(request, "model.compile", False, because, "compile-by-request")


def _packing(request: PlanRequest) -> Decision:
    """Per dataset in the spec; packed if any wants it, so that the rule can refuse it by name."""
    wanted = [d.packing for d in request.datasets]
    if any(w is True for w in wanted):
        return user_decision(request, "dataset.packing", True)
    if all(w is False for w in wanted):
        return user_decision(request, "dataset.packing", False)
    because = "this runtime has no attention backend that keeps packed documents apart"
    return Decision(field="dataset.packing", value=False, because=because, source="rule:packing-needs-varlen")
