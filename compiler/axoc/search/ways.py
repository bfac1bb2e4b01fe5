"""Ways to run a model: packing, attention, kernels and compilation, all combinations that the request leaves open.

What is left open is searched with everything else. A rule takes a value out before that only where it is known what comes
of it, or where nothing is: each says so in its decision.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from axoc.cost.scenario import BY_DOCUMENT
from axoc.facts.varlen import FLASH_4, flash_4_serves, obstacles
from axoc.ir.facts import AcceleratorFacts, ModelFacts, RowLengths
from axoc.ir.plan import Decision
from axoc.ir.request import AUTO, PlanRequest

IMITATING: Final = ("sft", "pretrain")
LIGER_FAMILIES: Final = frozenset(
    {"llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "gemma2", "gemma3", "phi3", "olmo2"}
)
"""Families liger-kernel 0.8 patches (liger_kernel/transformers/monkey_patch.py)."""
GENERIC: Final = "generic"
"""The family of what has none."""
PACKING: Final = "dataset.packing"


@dataclass(frozen=True, kw_only=True)
class Way:
    attention: str
    kernels: str
    compile: bool
    packing: bool


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Values of one field that are left, and where there is one alone, why."""

    values: tuple[Any, ...]
    decision: Decision | None = None


@dataclass(frozen=True, kw_only=True)
class Ways:
    all: tuple[Way, ...]
    """In order of preference where all else is equal: the plainest first."""
    decisions: tuple[Decision, ...]
    """Of the fields that are not searched."""


def ways(request: PlanRequest, model: ModelFacts, accelerator: AcceleratorFacts, lengths: RowLengths | None) -> Ways:
    """``lengths``: of the rows."""
    packing = _packing(request, model, accelerator, lengths)
    kernels = _kernels(request, model, accelerator)
    compiled = _compile(request, model, accelerator)
    found = tuple(
        Way(attention=_attention(request, model, accelerator, packed), kernels=k, compile=c, packing=packed)
        for packed in packing.values
        for k in kernels.values
        for c in compiled.values
    )
    attention = _attention_decision(request, model, accelerator, packing)
    fixed = (c.decision for c in (attention, kernels, compiled, packing))
    return Ways(all=found, decisions=tuple(d for d in fixed if d is not None))


def user_decision(request: PlanRequest, field: str, value: Any) -> Decision:
    if field in request.explicit:
        return Decision(field=field, value=value, because="set in the spec", source="user")
    return Decision(field=field, value=value, because="the spec's default", source="default")


def _ruled(field: str, value: Any, because: str, rule: str) -> Choice:
    return Choice(values=(value,), decision=Decision(field=field, value=value, because=because, source=f"rule:{rule}"))


def _set(request: PlanRequest, field: str, value: Any) -> Choice:
    return Choice(values=(value,), decision=user_decision(request, field, value))


def _attention(request: PlanRequest, model: ModelFacts, accelerator: AcceleratorFacts, packed: bool) -> str:
    wanted = request.model.attention
    if wanted != AUTO:
        return wanted
    if packed:
        return FLASH_4 if flash_4_serves(model, accelerator, compute_dtype(request)) else "varlen"
    return "eager" if model.attention_softcapping is not None else "sdpa"


def _attention_decision(
    request: PlanRequest, model: ModelFacts, accelerator: AcceleratorFacts, packing: Choice
) -> Choice:
    """Follows packing; where that is searched, so is attention."""
    field = "model.attention"
    values = tuple(_attention(request, model, accelerator, p) for p in packing.values)
    if request.model.attention != AUTO:
        return _set(request, field, request.model.attention)
    if len(values) > 1:
        return Choice(values=values)
    if values[0] == FLASH_4:
        because = (
            f"rows are packed: flash attention 4 keeps documents apart without a mask, on {accelerator.name} in about half the "
            "time of torch's varlen kernels; the lock pins it, and it builds its kernels when training starts"
        )
        return _ruled(field, FLASH_4, because, "packed-flash-4")
    if values[0] == "varlen":
        because = "rows are packed: torch's varlen kernels keep documents apart without a mask, and need no package"
        return _ruled(field, "varlen", because, "packed-varlen")
    if values[0] == "eager":
        because = f"{model.family} caps its attention scores, which SDPA cannot do: eager does, at s x s memory a head"
        return _ruled(field, "eager", because, "softcap-eager")
    because = "rows are not packed: SDPA's fused kernels need no mask and support grouped queries"
    return _ruled(field, "sdpa", because, "unpacked-sdpa")


def _packing(
    request: PlanRequest, model: ModelFacts, accelerator: AcceleratorFacts, lengths: RowLengths | None
) -> Choice:
    """Per dataset in the spec; packed if any wants it, so that a rule can refuse it by name."""
    wanted = [d.packing for d in request.datasets]
    if any(w is True for w in wanted):
        return _set(request, PACKING, True)
    if all(w is False for w in wanted):
        return _set(request, PACKING, False)
    for because, rule in _not_packed(request, model, accelerator, lengths):
        return _ruled(PACKING, False, because, rule)
    if lengths is not None:
        return Choice(values=(False, True))
    because = (
        "rows are packed where documents can be kept apart: no padding is computed. How long rows are is not known, so time is "
        "that of full rows; dataset.mean_tokens, or axoc lock, tells"
    )
    return _ruled(PACKING, True, because, "packed-by-default")


def _not_packed(
    request: PlanRequest, model: ModelFacts, accelerator: AcceleratorFacts, lengths: RowLengths | None
) -> Iterator[tuple[str, str]]:
    """Reasons with their rules."""
    objective, attention = request.training.objective, request.model.attention
    if model.vision is not None:
        yield "the tokens of images come from outside a row, and are not packed", "vision-rows"
    if model.family == GENERIC:
        yield (
            f"whether {model.model_type} keeps documents apart that are packed into one row is not known: it is left to you",
            "unknown-architecture",
        )
    if objective not in IMITATING:
        yield (
            f"objective {objective} holds rows against one another, and packed rows have no borders to do it at",
            "preference-packing",
        )
    if attention not in (AUTO, *BY_DOCUMENT):
        yield f"attention {attention} does not keep packed documents apart", "packing-needs-varlen"
    if accelerator.vendor == "cpu":
        if lengths is None:
            yield (
                "on a CPU documents are attended to one by one, and how long rows are is not known",
                "packing-needs-varlen",
            )
        return
    for why in obstacles(model, accelerator, compute_dtype(request)):
        yield f"torch's varlen attention cannot keep documents apart here: {why}", "packing-needs-varlen"


def compute_dtype(request: PlanRequest) -> str:
    mixed = request.distributed.mixed_precision
    return {"bf16": "bfloat16", "fp16": "float16", "fp8": "bfloat16"}.get(mixed, request.model.dtype)


def _kernels(request: PlanRequest, model: ModelFacts, accelerator: AcceleratorFacts) -> Choice:
    field, wanted, objective = "model.kernels", request.model.kernels, request.training.objective
    if wanted != AUTO:
        return _set(request, field, wanted)
    if accelerator.vendor == "cpu":
        because = "Liger's Triton kernels need a GPU, and logits are seldom what a host's memory is short of"
        return _ruled(field, "none", because, "liger-needs-gpu")
    if model.vision is not None:
        because = "fused losses replace a decoder's forward, which takes no pixels"
        return _ruled(field, "none", because, "vision-modules")
    if request.distributed.model_parallel_size not in (AUTO, 1):
        because = "Liger's kernels and the chunked loss read weights whole, and tensor parallelism splits them"
        return _ruled(field, "none", because, "tensor-parallel-kernels")
    if objective not in IMITATING:
        because = f"objective {objective} makes its own loss, which Liger's would replace"
        return _ruled(field, "none", because, "preference-kernels")
    if model.family == GENERIC:
        because = f"what {model.model_type} does between its head and its loss is not known: it is left to you"
        return _ruled(field, "none", because, "unknown-architecture")
    return Choice(values=("none", "chunked", *(["liger"] if model.family in LIGER_FAMILIES else [])))


def _compile(request: PlanRequest, model: ModelFacts, accelerator: AcceleratorFacts) -> Choice:
    """Searched with what compiling takes as a part of the run; where the run's length is not known, by the step alone."""
    field, wanted = "model.compile", request.model.compile
    if wanted != AUTO:
        return _set(request, field, wanted)
    if request.distributed.mixed_precision == "fp8":
        because = "casts to float8 gain only where compilation fuses them with what makes the values"
        return _ruled(field, True, because, "fp8-compile")
    for because in _not_compiled(request, model, accelerator):
        return _ruled(field, False, because, "compile-by-request")
    return Choice(values=(False, True))


def _not_compiled(request: PlanRequest, model: ModelFacts, accelerator: AcceleratorFacts) -> Iterator[str]:
    """Where nobody has tried it: it is left to the user."""
    if model.vision is not None:
        yield "compiled blocks were not tried with a part that sees: it is left to you"
    if model.family == GENERIC:
        yield f"blocks of {model.model_type} were not tried compiled: it is left to you"
    if accelerator.vendor != "nvidia":
        yield f"compiled blocks were not measured on {accelerator.name}: it is left to you"
    if model.moe is not None:
        yield "how many tokens an expert gets differs from batch to batch, and compiled code with it: it is left to you"
    if request.training.objective not in IMITATING:
        yield f"objective {request.training.objective} was not tried with compiled blocks: it is left to you"
