"""accelerate's launch configuration (1.15), and DeepSpeed's JSON: how a run is spread, and nothing of what it trains."""

from __future__ import annotations

from typing import Any, Final

from axoc.errors import UserError
from axoc.importing.distributed import STRATEGIES, deepspeed_file, deepspeed_values, fsdp, offload_of
from axoc.importing.keys import Key, each, number, out, refuse, to, whole, with_others
from axoc.importing.translate import Draft, Tool, problem

WHERE: Final = "where it runs is the inventory's and the target's"
KINDS: Final = {"NO": None, "MULTI_GPU": "ddp", "MULTI_CPU": "ddp", "DEEPSPEED": "deepspeed", "FSDP": "fsdp"}

ACCELERATE: Final[dict[str, Key]] = {
    **each(with_others(), "distributed_type", "num_processes", "mixed_precision", "deepspeed_config", "fsdp_config", "parallelism_config",
           "deepspeed_config.*", "fsdp_config.*",
           "parallelism_config.*", "use_cpu"),
    **each(out(WHERE), "compute_environment", "machine_rank", "num_machines", "main_process_ip", "main_process_port",
           "rdzv_backend", "same_network", "gpu_ids", "enable_cpu_affinity", "main_training_function", "tpu_*", "debug",
           "dynamo_config", "megatron_lm_config", "downcast_bf16", "ipex_config", "mpirun_config"),
}  # fmt: skip
FSDP_LEFT: Final = "FSDP2's own way, which is planned: units, gathers, loading and sharded checkpoints"
TAKEN: Final = (
    "deepspeed_config.zero_stage",
    "deepspeed_config.deepspeed_config_file",
    "deepspeed_config.offload_optimizer_device",
    "deepspeed_config.offload_param_device",
    "fsdp_config.fsdp_offload_params",
    "fsdp_config.fsdp_sharding_strategy",
    "fsdp_config.fsdp_reshard_after_forward",
    "fsdp_config.fsdp_activation_checkpointing",
    "parallelism_config.parallelism_config_tp_size",
)


def _strategy(draft: Draft) -> None:
    kind = str(draft.get("distributed_type") or "NO").upper()
    if kind not in KINDS:
        message = f"distributed_type: {kind} is not among axoc's strategies"
        raise UserError(problem(draft, "distributed_type", message, expected=", ".join(KINDS)))
    if KINDS[kind] == "deepspeed":
        _deepspeed(draft)
    elif KINDS[kind] == "fsdp":
        sharding = draft.get("fsdp_config.fsdp_sharding_strategy") or draft.get(
            "fsdp_config.fsdp_reshard_after_forward"
        )
        fsdp(
            draft,
            "distributed_type",
            offload=draft.get("fsdp_config.fsdp_offload_params"),
            sharding=sharding if isinstance(sharding, str) else None,
            checkpointing=draft.get("fsdp_config.fsdp_activation_checkpointing"),
        )
    elif KINDS[kind] is not None:
        draft.moved("distributed_type", "distributed.type", "ddp")
    if kind != "NO" and draft.get("num_processes"):
        draft.moved("num_processes", "distributed.gpu_count", whole(draft.get("num_processes")))
    if precision := draft.get("mixed_precision"):
        draft.moved("mixed_precision", "distributed.mixed_precision", str(precision))


def _deepspeed(draft: Draft) -> None:
    if draft.get("deepspeed_config.deepspeed_config_file"):
        deepspeed_file(draft, "deepspeed_config.deepspeed_config_file")
        return
    stage = draft.get("deepspeed_config.zero_stage")
    if stage not in STRATEGIES:
        message = f"deepspeed_config.zero_stage: {stage} is no stage of ZeRO"
        raise UserError(problem(draft, "deepspeed_config", message, expected="0, 1, 2 or 3"))
    draft.moved("deepspeed_config.zero_stage", "distributed.type", STRATEGIES[stage])
    devices = [draft.get(f"deepspeed_config.offload_{what}_device") for what in ("optimizer", "param")]
    if offload := offload_of(*devices):
        draft.moved("deepspeed_config.offload_optimizer_device", "distributed.offload", offload)


def _parallelism(draft: Draft) -> None:
    for what in ("cp", "sp"):
        key = f"parallelism_config.parallelism_config_{what}_size"
        if draft.get(key) not in (None, 1):
            message = f"{key}: {draft.get(key)} splits sequences over devices, which axoc does not"
            raise UserError(
                problem(draft, "parallelism_config", message, fix="set it to 1 and dataset.max_seq_length lower")
            )
    size = draft.get("parallelism_config.parallelism_config_tp_size")
    if size not in (None, 1):
        draft.moved("parallelism_config.parallelism_config_tp_size", "distributed.model_parallel_size", whole(size))


def _left(draft: Draft) -> None:
    """What the sections hold beside that."""
    noted = {note.key for note in draft.notes}
    for key, value in draft.values.items():
        if "." in key and key not in noted and key not in TAKEN and value not in (None, False, 1, "none"):
            draft.note(
                key, "left out", reason=FSDP_LEFT if key.startswith("fsdp") else "planned, and written into the bundle"
            )


TOOL: Final = Tool(
    name="accelerate",
    keys=ACCELERATE,
    sections=("deepspeed_config", "fsdp_config", "parallelism_config"),
    combine=(_strategy, _parallelism, _left),
)

# --- DeepSpeed's own JSON

RUNTIME: Final = "DeepSpeed's own tuning is planned and written into the bundle: config_path takes a file of your own"
DEEPSPEED: Final[dict[str, Key]] = {
    **each(with_others(), "zero_optimization", "bf16", "fp16"),
    "train_batch_size": to("training.global_batch_size", lambda v: whole(v) if v != "auto" else "auto"),
    "train_micro_batch_size_per_gpu": to("training.micro_batch_size", lambda v: whole(v) if v != "auto" else "auto"),
    "gradient_accumulation_steps": to("training.gradient_accumulation_steps", lambda v: whole(v) if v != "auto" else "auto"),
    "gradient_clipping": to("training.max_grad_norm", lambda v: number(v) if v != "auto" else 1.0),
    **each(refuse("is not among axoc's ways"), "pipeline", "sparse_attention", "compression_training", "quantize_training"),
    **each(out(RUNTIME), "zero_allow_untested_optimizer", "steps_per_print", "wall_clock_breakdown", "communication_data_type",
           "prescale_gradients", "gradient_predivide_factor", "zero_force_ds_cpu_optimizer", "aio", "flops_profiler", "comms_logger",
           "tensorboard", "wandb", "csv_monitor", "monitor_config", "amp", "data_types", "checkpoint", "dump_state",
           "activation_checkpointing", "elasticity", "autotuning", "hybrid_engine", "tensor_parallel", "torch_autocast", "compile"),
    **each(with_others(), "optimizer", "scheduler"),
}  # fmt: skip


def _json_strategy(draft: Draft) -> None:
    deepspeed_values(draft, "zero_optimization", {"zero_optimization": draft.get("zero_optimization") or {}})
    for name in ("bf16", "fp16"):
        section: Any = draft.get(name)
        if isinstance(section, dict) and section.get("enabled") not in (None, False):
            if "mixed_precision" not in draft.spec.get("distributed", {}):
                draft.moved(name, "distributed.mixed_precision", name)
            else:
                draft.note(name, "left out", reason="bf16 is taken where both are left open")


def _json_optimizer(draft: Draft) -> None:
    for section, fields in (
        ("optimizer", {"lr": "training.learning_rate", "weight_decay": "training.weight_decay"}),
        ("scheduler", {}),
    ):
        found = draft.get(section)
        if not isinstance(found, dict):
            continue
        parameters = found.get("params") or {}
        moved = {f: number(parameters[k]) for k, f in fields.items() if parameters.get(k) not in (None, "auto")}
        for field, value in moved.items():
            draft.put(field, value)
        reason = "" if moved else "the optimizer and its schedule are training's own fields"
        draft.note(
            section,
            "moved" if moved else "left out",
            field=", ".join(moved),
            became=list(moved.values()),
            reason=reason,
        )


DEEPSPEED_TOOL: Final = Tool(name="deepspeed", keys=DEEPSPEED, combine=(_json_strategy, _json_optimizer))
