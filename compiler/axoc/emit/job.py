"""job.json: all that the runtime is told. Its structure is that of docs/job.md."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from axoc import __version__
from axoc.cost.disk import RUN_ITEMS
from axoc.cost.whole_run import BEFORE_PROCESSES
from axoc.emit.links import counted_rates
from axoc.emit.placement import config_path, placement
from axoc.facts.float8 import float8_linears
from axoc.facts.profile import Pace, profile_for
from axoc.ir.canonical import to_plain
from axoc.ir.estimate import MemoryEstimate, TimeEstimate
from axoc.ir.plan import Plan
from axoc.ir.request import AUTO, DatasetRequest, PlanRequest, QuantizationRequest
from axoc.search.adapter_inputs import casts_inputs, scales_between
from axoc.search.resume import resume_dict

SCHEMA_VERSION: Final = 1
PLANNED_WITH: Final = ("mean_tokens",)
"""Of a dataset: what only the planner reads."""
UNKNOWN_LICENCE: Final = "unknown"
BASE_DIR: Final = ".."
"""Relative paths of a spec count from the bundle's parent folder unless the caller says otherwise."""


def job_dict(plan: Plan, *, base_dir: str = BASE_DIR) -> dict[str, Any]:
    """The job as JSON types. ``base_dir`` is relative to the bundle's folder."""
    request = plan.request
    return {
        "schema_version": SCHEMA_VERSION,
        "axoc_version": __version__,
        "spec_digest": plan.spec_digest,
        "name": request.name,
        "base_dir": base_dir,
        "model": _model(plan),
        "adapter": _adapter(plan),
        "datasets": _datasets(plan),
        "training": _training(plan),
        "eval_metrics": list(request.eval_metrics),
        "samples": to_plain(request.samples),
        "distributed": _distributed(plan),
        "resume": resume_dict(plan),
        "export": to_plain(request.export),
        "tracking": list(request.tracking),
        "output_dir": request.output_dir,
        "upload_to": request.upload_to,
        "logging_level": request.logging_level,
        "plugins": list(request.plugins),
        "prediction": _prediction(plan),
        "expect": _expect(plan),
    }


def _model(plan: Plan) -> dict[str, Any]:
    request, chosen = plan.request.model, plan.chosen.candidate
    return {
        "id": request.id,
        "revision": request.revision,
        "family": plan.model.family,
        "decoder_block": plan.model.decoder_block,
        "dtype": chosen.dtype,
        "attention": chosen.attention,
        "kernels": chosen.kernels,
        "compile": chosen.compile,
        "quantization": _quantization(plan),
        "tokenizer": tokenizer_dict(plan.request, plan.model.vocab_size),
        "vision": request.vision,
        "trust_remote_code": request.trust_remote_code,
        "licence": _licence(plan),
    }


def _adapter(plan: Plan) -> dict[str, Any] | None:
    adapter = plan.request.adapter
    if adapter is None:
        return None
    chosen = plan.chosen.candidate
    return {
        **to_plain(adapter),
        "casts_inputs": casts_inputs(adapter, chosen, plan.cluster),
        "scales_between": scales_between(adapter, chosen.quantization),
    }


def _licence(plan: Plan) -> str | None:
    """Of the base model, as the catalog knows it: a hub's model has no folder that the runtime could read it from."""
    return None if plan.model.license == UNKNOWN_LICENCE else plan.model.license


def tokenizer_dict(request: PlanRequest, rows: int | None) -> dict[str, Any]:
    """``rows`` of the embedding with added tokens."""
    wanted = request.model.tokenizer
    kind = None if wanted.type == AUTO else wanted.type
    return {**to_plain(wanted), "type": kind, "embedding_rows": rows if wanted.added_tokens else None}


def _quantization(plan: Plan) -> dict[str, Any] | None:
    """The chosen method; the user's options hold only for the method the user named."""
    method = plan.chosen.candidate.quantization
    if method == "none":
        return None
    asked = plan.request.model.quantization
    if isinstance(asked, QuantizationRequest) and asked.method == method:
        return dict(to_plain(asked))
    return dict(to_plain(QuantizationRequest(method=method)))


def _datasets(plan: Plan) -> list[dict[str, Any]]:
    return [dataset_dict(dataset, packing=plan.chosen.candidate.packing) for dataset in plan.request.datasets]


def dataset_dict(dataset: DatasetRequest, *, packing: bool) -> dict[str, Any]:
    """What the runtime reads of a dataset."""
    told = {**to_plain(dataset), "packing": packing}
    return {name: value for name, value in told.items() if name not in PLANNED_WITH}


def _training(plan: Plan) -> dict[str, Any]:
    training, chosen = plan.request.training, plan.chosen.candidate
    return {
        "objective": training.objective,
        "epochs": training.epochs,
        "max_steps": training.max_steps,
        "global_batch_size": chosen.global_batch_size,
        "micro_batch_size": chosen.micro_batch_size,
        "gradient_accumulation_steps": chosen.gradient_accumulation_steps,
        "gradient_checkpointing": chosen.gradient_checkpointing,
        "checkpointed_layers": chosen.checkpointed_layers,
        "checkpoint_above_parameters": training.checkpoint_above_parameters,
        "optimizer": chosen.optimizer,
        "bf16_update": training.bf16_update,
        "learning_rate": training.learning_rate,
        "lr_scheduler": training.lr_scheduler,
        "warmup_ratio": training.warmup_ratio,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "seed": training.seed,
        "logging_steps": training.logging_steps,
        "eval_steps": plan.schedule.eval_steps,
        "eval_rows": training.eval_rows,
        "save_steps": plan.schedule.save_steps,
        "early_stopping_patience": training.early_stopping_patience,
        "preference": to_plain(training.preference),
        "grpo": to_plain(training.grpo),
    }


def _distributed(plan: Plan) -> dict[str, Any]:
    chosen, place = plan.chosen.candidate, placement(plan)
    return {
        "strategy": chosen.strategy,
        "device": place.device,
        "world_size": chosen.world_size,
        "nodes": place.nodes,
        "processes_per_node": place.processes_per_node,
        "data_parallel": chosen.data_parallel,
        "tensor_parallel": chosen.tensor_parallel,
        "replicate_degree": chosen.replicate_degree,
        "mixed_precision": chosen.mixed_precision,
        "offload": chosen.offload,
        "config": config_path(chosen.strategy),
    }


def _prediction(plan: Plan) -> dict[str, Any]:
    memory, time = plan.chosen.estimate.memory, plan.chosen.estimate.time
    profile = profile_for(plan.cluster)
    return {
        "peak_allocated_bytes": memory.peak_allocated_bytes,
        "peak_reserved_bytes": memory.peak_reserved_bytes,
        "device_used_bytes": memory.device_used_bytes,
        "host_bytes": memory.host_bytes,
        "step_seconds": time.step_seconds,
        "tokens_per_second": time.tokens_per_second,
        "mfu": None if placement(plan).device == "cpu" else time.mfu,
        **_measured_run(time),
        "step_breakdown": dict(time.breakdown),
        "pace": asdict(profile.pace if profile is not None else Pace()),
        "batch_fill": time.batch_fill,
    }


def _measured_run(time: TimeEstimate) -> dict[str, float | None]:
    """Time and cost from the start of the training processes on: what the run will measure of itself."""
    if not time.total_seconds:
        return {"total_seconds": time.total_seconds, "cost_usd": time.cost_usd}
    before = sum(i.seconds for i in time.run_breakdown if i.item in BEFORE_PROCESSES)
    share = 1 - before / time.total_seconds
    cost = None if time.cost_usd is None else time.cost_usd * share
    return {"total_seconds": time.total_seconds * share, "cost_usd": cost}


def _expect(plan: Plan) -> dict[str, Any]:
    memory, accelerator = plan.chosen.estimate.memory, plan.cluster.accelerator
    return {
        "accelerator": accelerator.name,
        "device_memory_bytes": 0 if placement(plan).device == "cpu" else accelerator.memory_bytes,
        "host_bytes": memory.host_bytes,
        "disk_bytes": _run_disk_bytes(memory),
        **counted_rates(plan),
        "parameters": plan.schedule.parameters,
        "trainable_parameters": plan.schedule.trainable_parameters,
        "float8_linears": float8_linears(plan.model) if plan.chosen.candidate.mixed_precision == "fp8" else 0,
    }


def _run_disk_bytes(memory: MemoryEstimate) -> int:
    """What the run itself will write into its output folder: preflight runs when the environment is there already."""
    if not memory.disk_ledger:
        return memory.disk_bytes
    return sum(i.bytes for i in memory.disk_ledger if i.item in RUN_ITEMS)
