"""Depths traced under strategies of several ranks, and sizes to hold them against."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .shapes import LLAMA, job

REMEMBERED: dict[str, Any] = {}

WORKSPACES = 2 * 4096 * 8 * 1024
"""cuBLAS's, one for each thread."""
SHALLOW = {**LLAMA, "num_hidden_layers": 3}
LORA = {
    "type": "lora", "rank": 8, "alpha": 16.0, "dropout": 0.0, "targets": "all-linear", "use_rslora": False,
    "use_dora": False, "modules_to_save": [], "init": "default", "init_iterations": None, "loraplus_lr_ratio": None,
}  # fmt: skip


def distributed(strategy: str, data: int, tensor: int = 1, config: str | None = None) -> dict[str, Any]:
    return {
        "strategy": strategy,
        "device": "cuda",
        "world_size": data * tensor,
        "nodes": 1,
        "processes_per_node": data * tensor,
        "data_parallel": data,
        "tensor_parallel": tensor,
        "replicate_degree": 1,
        "mixed_precision": "bf16",
        "offload": "none",
        "config": config,
    }


def run(
    folder: Path,
    strategy: str,
    data: int,
    tensor: int = 1,
    model: dict[str, Any] = SHALLOW,
    settings: Any = None,
    copies: int = 1,
    offload: str = "none",
    **changes: Any,
) -> Any:
    """One depth traced. ``settings``: DeepSpeed's zero_optimization, or FSDP's configuration."""
    from axoc_runtime.trace.device import DEVICES
    from axoc_runtime.trace.step import trace_depth

    config = None
    if settings is not None:
        config = "config.json"
        (folder / config).write_text(json.dumps(settings if strategy == "fsdp" else {"zero_optimization": settings}))
    placed = distributed(strategy, data, tensor, config) | {"replicate_degree": copies, "offload": offload}
    made = job(folder, model, distributed=placed, **changes)
    return trace_depth(made, model, DEVICES["h100"], 1)


def once(folder: Path, *what: Any, **changes: Any) -> Any:
    """``run``, but what one test has traced another one reads. Nobody changes it, and nothing may be patched meanwhile."""
    key = json.dumps([what, changes], sort_keys=True)
    if key not in REMEMBERED:
        REMEMBERED[key] = run(folder, *what, **changes)
    return REMEMBERED[key]


def sizes(traced: Any, phase: str | None = None, stream: int | None = None) -> list[int]:
    """Of all allocations."""
    return [
        e.num_bytes
        for e in traced.events
        if e.num_bytes > 0 and phase in (None, e.phase) and stream in (None, e.stream)
    ]


def numbers(model: dict[str, Any] = SHALLOW) -> list[int]:
    """Elements of each parameter."""
    import torch
    from axoc_runtime.trace.model import library_config
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return [p.numel() for p in AutoModelForCausalLM.from_config(library_config(model)).parameters()]


def up(num_bytes: int) -> int:
    return -(-num_bytes // 512) * 512
