"""Warnings: what is allowed but should be known before it is paid for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from axoc.facts.varlen import FLASH_4, obstacles
from axoc.ir.facts import ClusterFacts, ModelFacts
from axoc.ir.plan import Scored
from axoc.ir.request import PlanRequest
from axoc.search.ways import compute_dtype


def warnings(request: PlanRequest, model: ModelFacts, chosen: Scored) -> tuple[str, ...]:
    found = (check(request, model, chosen) for check in CHECKS)
    return tuple(w for w in found if w is not None)


def long_rows(request: PlanRequest, model: ModelFacts, _: Scored) -> str | None:
    longest = request.max_seq_length
    if longest <= model.max_position_embeddings:
        return None
    return f"max_seq_length {longest:,} is longer than the {model.max_position_embeddings:,} positions {model.id} was made for"


def unknown_length(_: PlanRequest, __: ModelFacts, chosen: Scored) -> str | None:
    if chosen.estimate.time.total_steps is not None:
        return None
    return "the number of rows is not known: run `axoc lock`, or set training.max_steps, for the run's time and cost"


def no_price(_: PlanRequest, __: ModelFacts, chosen: Scored) -> str | None:
    time = chosen.estimate.time
    if time.total_seconds is None or time.cost_usd is not None or chosen.candidate.accelerator == "cpu":
        return None
    return f"no price is known for {chosen.candidate.accelerator}: give price_per_hour_usd in an inventory file"


def remote_code(request: PlanRequest, _: ModelFacts, __: Scored) -> str | None:
    if not request.model.trust_remote_code:
        return None
    return "trust_remote_code: true runs Python from the model's repository with your rights: pin model.revision and read it"


def unpinned(request: PlanRequest, _: ModelFacts, __: Scored) -> str | None:
    model = request.model
    if not model.looks_remote or model.revision is not None:
        return None
    return f"model.revision is not set: {model.id} may change between runs; pin a commit"


def offloaded_step(_: PlanRequest, __: ModelFacts, chosen: Scored) -> str | None:
    """DeepSpeed's own CPU Adam would be compiled at start, by an nvcc that matches torch's CUDA (DeepSpeed 3223)."""
    if chosen.candidate.offload == "none":
        return None
    return "offload: torch's AdamW updates the states on the host's cores; nothing is compiled, but steps wait for them"


def flash_attention_unlocked(_: PlanRequest, __: ModelFacts, chosen: Scored) -> str | None:
    """Its wheels are built for one torch and one CUDA (axolotl 1238), and none is pinned."""
    if chosen.candidate.attention != "flash_attention_2":
        return None
    return (
        "flash_attention_2: no lock pins flash-attn; install a build for the locked torch and launch with --no-install, "
        "or set model.attention: sdpa"
    )


def on_paper(request: PlanRequest, _: ModelFacts, __: Scored) -> str | None:
    missing = ["model.id"] if request.model.id is None else []
    missing += ["dataset.path"] if any(d.path is None for d in request.datasets) else []
    if missing:
        return f"{' and '.join(missing)} is not set: this plan can be read, but its bundle stops at launch"
    return None


def no_masters(request: PlanRequest, _: ModelFacts, chosen: Scored) -> str | None:
    """Of all weights, or of those that are trained whole beside an adapter; k-bit preparation raises these to float32."""
    c, adapter = chosen.candidate, request.adapter
    if c.dtype == "float32" or c.strategy.startswith("zero") or request.training.bf16_update == "stochastic":
        return None
    if adapter is not None and (not adapter.modules_to_save or c.quantization != "none"):
        return None
    trained = "weights" if adapter is None else f"weights of {' and '.join(adapter.modules_to_save)}"
    return (
        f"{c.dtype} {trained} are trained without float32 masters: updates far smaller than a weight are rounded away; "
        "training.bf16_update: stochastic keeps them on average, model.dtype: float32 (at 16 bytes a parameter) or a zero "
        "strategy keeps masters"
    )


def packed_one_by_one(
    request: PlanRequest, model: ModelFacts, cluster: ClusterFacts, chosen: Scored
) -> tuple[str, ...]:
    """Packing that is set, where the kernel that keeps documents apart cannot be used: right, and slow."""
    if not chosen.candidate.packing or chosen.candidate.attention not in ("varlen", FLASH_4):
        return ()
    why = obstacles(model, cluster.accelerator, compute_dtype(request))
    if not why:
        return ()
    return (
        f"rows are packed, but attention {chosen.candidate.attention} cannot keep their documents apart here ({'; '.join(why)}): they are "
        "attended to one by one, a call for each document and layer; dataset.packing: false pads instead",
    )


def tool_calls(request: PlanRequest, _: ModelFacts, __: Scored) -> str | None:
    if not any(d.support_tool_calls for d in request.datasets):
        return None
    return "support_tool_calls: this runtime reads tool calls in the chat format only, if the model's template has them"


CHECKS: Final[tuple[Callable[[PlanRequest, ModelFacts, Scored], str | None], ...]] = (
    long_rows,
    unknown_length,
    no_price,
    remote_code,
    unpinned,
    offloaded_step,
    flash_attention_unlocked,
    on_paper,
    no_masters,
    tool_calls,
)
