"""A hand-written DeepSpeed or FSDP configuration (``distributed.config_path``): checked, then used as it is."""

from __future__ import annotations

import json
from typing import Any, Final

from axoc.emit.deepspeed import deepspeed_config
from axoc.emit.fsdp import fsdp_config
from axoc.emit.json_places import lines_of
from axoc.errors import Diagnostic, UserError
from axoc.ir.plan import Plan

FSDP_SHARED: Final = (
    "transformer_layer_cls_to_wrap",
    "cpu_offload",
    "offload_params",
    "state_dict_type",
    "cpu_ram_efficient_loading",
    "activation_checkpointing",
)
"""What the plan's memory, or the runtime's own saving and checkpointing, counts on."""


def checked_user_config(plan: Plan, text: str) -> str:
    """``text`` unchanged. Raises UserError where it is not a JSON object or contradicts the plan."""
    where = plan.request.distributed.config_path
    try:
        config = json.loads(text)
    except ValueError as error:
        raise UserError(Diagnostic(message=f"not JSON: {error}", file=where, expected="a JSON object")) from None
    if not isinstance(config, dict):
        raise UserError(Diagnostic(message="not a JSON object", file=where, expected="a JSON object"))
    lines = lines_of(text)
    problems = [
        _contradiction(where, lines.get(tuple(key.split("."))), key, value, planned)
        for key, value, planned in _differences(plan, config)
    ]
    if problems:
        raise UserError(*problems)
    return text


def _differences(plan: Plan, config: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Keys that must equal the plan, the file's value, the plan's value. What the file leaves out or sets to ``auto``
    is filled in by transformers from the same plan."""
    found = []
    for key, planned in _shared_values(plan).items():
        value = _as_planned(_look_up(config, key), planned)
        same_type = isinstance(value, bool) == isinstance(planned, bool)
        if value is not None and value != "auto" and not (same_type and value == planned):
            found.append((key, value, planned))
    return found


def _shared_values(plan: Plan) -> dict[str, Any]:
    """FSDP's under each name that transformers reads them by: with and without the prefix."""
    if plan.chosen.candidate.strategy == "fsdp":
        planned_fsdp = fsdp_config(plan).as_dict()
        shared = {name: planned_fsdp[name] for name in FSDP_SHARED}
        version = {"version": planned_fsdp["fsdp_version"], "fsdp_version": planned_fsdp["fsdp_version"]}
        return version | shared | {f"fsdp_{name}": value for name, value in shared.items()}
    planned = deepspeed_config(plan)
    return {
        "train_batch_size": planned.train_batch_size,
        "train_micro_batch_size_per_gpu": planned.train_micro_batch_size_per_gpu,
        "gradient_accumulation_steps": planned.gradient_accumulation_steps,
        "gradient_clipping": planned.gradient_clipping,
        "bf16.enabled": planned.bf16.enabled,
        "fp16.enabled": planned.fp16.enabled,
        "zero_optimization.stage": planned.zero_optimization.stage,
    }


def _as_planned(value: Any, planned: Any) -> Any:
    """One name stands for a list of one."""
    return [value] if isinstance(planned, list) and isinstance(value, str) and value != "auto" else value


def _look_up(config: dict[str, Any], dotted: str) -> Any:
    value: Any = config
    for part in dotted.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _contradiction(where: str | None, line: int | None, key: str, value: Any, planned: Any) -> Diagnostic:
    return Diagnostic(
        message=f"{key} is {json.dumps(value)}, the plan says {json.dumps(planned)}",
        file=where,
        line=line,
        expected=json.dumps(planned),
        fix=f'set {key} to {json.dumps(planned)}, or to "auto", or change the spec',
    )
