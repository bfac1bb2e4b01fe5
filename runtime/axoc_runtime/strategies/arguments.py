"""What a strategy sets in TrainingArguments."""

from __future__ import annotations

import json
import sys
from typing import Any

from axoc_runtime.job import Job
from axoc_runtime.models.architecture import unknown

UNITS = ("blocks_per_unit", "min_unit_parameters")
"""Keys of config/fsdp.json that no library reads."""


def strategy_arguments(job: Job) -> dict[str, Any]:
    """Keyword arguments of TrainingArguments."""
    strategy, config = job.distributed.strategy, job.distributed.config
    own: dict[str, Any] = {"accelerator_config": accelerator_config(job)}
    if strategy.startswith("zero"):
        assert config is not None
        return own | {"deepspeed": read_config(job)}
    if strategy == "fsdp":
        assert config is not None
        return own | {"fsdp": True, "fsdp_config": fsdp_config(job)}
    if strategy == "ddp":
        return own | {"ddp_find_unused_parameters": False}
    return own


def accelerator_config(job: Job) -> dict[str, Any]:
    """Batches come to a GPU while it works. FSDP2 would leave gradients unreduced until a step's last micro-batch
    (accelerate's no_sync), and every rank would hold all of them, whole: the memory that sharding was to save."""
    config: dict[str, Any] = {"non_blocking": job.distributed.device != "cpu"}
    if job.distributed.strategy == "fsdp":
        config["gradient_accumulation_kwargs"] = {"sync_each_batch": True}
    return config


def fsdp_config(job: Job) -> dict[str, Any]:
    """The bundle's file in transformers' terms, without what units.py reads of it."""
    loaded = {key: value for key, value in read_config(job).items() if key not in UNITS}
    loaded["version"] = loaded.pop("fsdp_version", 2)
    if unknown(job):  # whose blocks units.py finds: accelerate is to look for none by a name that was guessed
        del loaded["transformer_layer_cls_to_wrap"]
        loaded |= {"auto_wrap_policy": "SIZE_BASED_WRAP", "min_num_params": sys.maxsize}
    return loaded


def read_config(job: Job) -> dict[str, Any]:
    """The strategy's configuration file; empty where there is none."""
    config = job.distributed.config
    if config is None:
        return {}
    loaded: dict[str, Any] = json.loads((job.bundle_dir / config).read_text(encoding="utf-8"))
    return loaded


def precision_arguments(job: Job) -> dict[str, bool]:
    """Autocast flags. Under FSDP a mixed precision makes accelerate upcast trained weights to fp32: weights that are
    to be trained in bfloat16 stay so only with it off, and then compute in bfloat16 anyway."""
    mixed, pure = job.distributed.autocast, job.model.dtype == "bfloat16"
    if job.distributed.strategy == "fsdp" and pure:
        mixed = "no"
    return {"bf16": mixed == "bf16", "fp16": mixed == "fp16"}
