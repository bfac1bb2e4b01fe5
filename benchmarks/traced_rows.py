"""Traces one configuration of random_configurations.py or random_shared.py with the runtime's own trace, for its phases."""

from __future__ import annotations

import gc
import json
import os
import tempfile
import warnings
from copy import deepcopy
from pathlib import Path
from typing import Any

from axoc.emit.moe import leaf_module_class
from axoc.facts.models import lookup_model
from axoc_runtime.job import Job, read_job
from trace_accuracy import job_value


def prepare() -> None:
    """Heavy imports, once; nothing may look for a network, and what they made is kept out of later collections."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    warnings.filterwarnings("ignore")
    import peft  # noqa: F401
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()


def job_of(row: dict[str, Any]) -> Job:
    """The job that would run the row on one H100, or on the first of two."""
    value = job_value(row, row["config"])
    value["distributed"]["mixed_precision"] = row["mixed"]
    if row["ddp"]:
        value["distributed"] |= {"strategy": "ddp", "world_size": 2, "processes_per_node": 2, "data_parallel": 2}
    if value["adapter"] is not None:
        value["adapter"] |= {"use_dora": row.get("dora", False), "modules_to_save": row.get("saved", [])}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.json"
        path.write_text(json.dumps(value))
        return read_job(path)


def traced(row: dict[str, Any]) -> dict[str, Any]:
    """Bytes by phase: of ``layers`` blocks, or, where ``deep``, of the published depth, from two shallow runs. Reserved
    bytes only of the former, whose events are all there."""
    from axoc_runtime.trace.allocator import reserved_bytes
    from axoc_runtime.trace.extrapolate import extrapolate, lead_of, period_of
    from axoc_runtime.trace.model import depth_of

    if "strategy" in row:
        return {"layers": row["layers"], "phases": sharded(row)}
    if not row["deep"]:
        run = at_depth(row, row["layers"], 1)
        return {"layers": row["layers"], "phases": run.phases, "reserved": reserved_bytes(run.events)}
    config = deepcopy(row["config"])  # the library writes into it
    period, layers, lead = period_of(config), depth_of(config), lead_of(config)
    first = lead + 3 * period + (layers - lead) % period
    few, more = (at_depth(row, depth, period) for depth in (first, first + period))
    return {"layers": layers, "phases": extrapolate(few, more, layers)}


def sharded(row: dict[str, Any]) -> dict[str, int]:
    """Bytes by phase, of the fullest rank."""
    from axoc_runtime.trace.extrapolate import trace
    from axoc_runtime.trace.model import with_depth
    from sharded_vs_trace import strategy_settings
    from torch._subclasses.fake_tensor import FakeTensorMode

    FakeTensorMode.cache_clear()
    config, world = with_depth(deepcopy(row["config"]), row["layers"]), row["world"]
    value = job_value(row, config)
    ranks = {"world_size": world, "data_parallel": world, "processes_per_node": world}
    value["distributed"] |= {"strategy": row["strategy"], "mixed_precision": row["mixed"], "config": "s.json", **ranks}
    value["distributed"]["offload"] = row.get("offload", "none")
    value["training"]["global_batch_size"] = row["mbs"] * row["ga"] * world
    if value["adapter"] is not None:
        value["adapter"] |= {"use_dora": row.get("dora", False)}
    width = config.get("hidden_size") or config["n_embd"]
    settings = strategy_settings(row["strategy"], width, value["model"]["decoder_block"])
    if row.get("offload") and row["strategy"] != "zero3":
        settings["zero_optimization"]["round_robin_gradients"] = True
    leaf = leaf_module_class(lookup_model(None, config, "config.json", "auto")[0])
    if leaf is not None and row["strategy"] == "zero3":
        settings["zero_optimization"]["leaf_module"] = {"classes": [leaf]}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "s.json").write_text(json.dumps(settings))
        path = Path(folder, "job.json")
        path.write_text(json.dumps(value))
        found = trace(read_job(path), config, full_run_seconds=1e9)
    return {name: int(size) for name, size in found.phases.items()}


def at_depth(row: dict[str, Any], layers: int, edge: int) -> Any:
    from axoc_runtime.trace.compiled import forget_compiled
    from axoc_runtime.trace.device import device_named
    from axoc_runtime.trace.model import with_depth
    from axoc_runtime.trace.step import trace_depth
    from torch._subclasses.fake_tensor import FakeTensorMode

    FakeTensorMode.cache_clear()  # of an earlier row's operations: it only grows
    config, job = with_depth(deepcopy(row["config"]), layers), job_of(row)
    forget_compiled(job)
    return trace_depth(job, config, device_named("h100-sxm-80gb"), edge)
