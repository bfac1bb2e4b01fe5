"""Jobs for the runtime's tests: docs/job.md's example, changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from axoc_runtime.job import Job, read_job

LORA: dict[str, Any] = {
    "type": "lora", "rank": 4, "alpha": 8.0, "dropout": 0.0, "targets": "all-linear",
    "use_rslora": False, "use_dora": False, "modules_to_save": [], "init": "default", "init_iterations": None, "loraplus_lr_ratio": None,
    "casts_inputs": True, "scales_between": False,
}  # fmt: skip

BASE: dict[str, Any] = {
    "schema_version": 1, "axoc_version": "0.1.0", "spec_digest": "sha256:0", "name": "test", "base_dir": ".",
    "model": {
        "id": "model", "revision": None, "family": "llama", "decoder_block": "LlamaDecoderLayer", "dtype": "float32",
        "attention": "sdpa", "kernels": "none", "compile": False, "quantization": None, "trust_remote_code": False,
        "tokenizer": {"source": None, "type": None, "chat_template": None, "added_tokens": [], "embedding_rows": None},
        "licence": None, "vision": False,
    },
    "adapter": None,
    "datasets": [{
        "path": "data.jsonl", "type": "auto", "weight": 1.0, "validation_split": 0.1, "split_seed": 42,
        "system_prompt": None, "support_tool_calls": False, "max_seq_length": 64, "packing": False, "streaming": False,
        "truncation": "right", "train_on": "assistant", "on_bad_row": "fail", "options": {},
    }],
    "training": {
        "objective": "sft", "epochs": None, "max_steps": 4, "global_batch_size": 4, "micro_batch_size": 1,
        "gradient_accumulation_steps": 2, "gradient_checkpointing": "none", "checkpointed_layers": 0,
        "checkpoint_above_parameters": None,
        "optimizer": "adamw_torch_fused", "bf16_update": "nearest", "learning_rate": 1e-3, "lr_scheduler": "constant", "warmup_ratio": 0.0,
        "weight_decay": 0.0, "max_grad_norm": 1.0, "seed": 42, "logging_steps": 1, "eval_steps": 2, "eval_rows": None, "save_steps": 2,
        "early_stopping_patience": None, "preference": None, "grpo": None,
    },
    "eval_metrics": ["perplexity"],
    "samples": {"prompts": [], "max_new_tokens": 8},
    "distributed": {
        "strategy": "ddp", "device": "cpu", "world_size": 2, "nodes": 1, "processes_per_node": 2, "data_parallel": 2,
        "tensor_parallel": 1, "replicate_degree": 1, "mixed_precision": "no", "offload": "none", "config": None,
    },
    "resume": {"strategies": ["ddp", "single"], "world_sizes": [1, 2, 4], "because": "every rank holds all of it"},
    "export": {"formats": [], "quantization": "none"},
    "tracking": [], "output_dir": "out", "upload_to": None, "logging_level": "INFO", "plugins": [],
    "prediction": {
        "peak_allocated_bytes": 0, "peak_reserved_bytes": 0, "device_used_bytes": 0, "host_bytes": 0,
        "step_seconds": 0.1, "tokens_per_second": 1.0, "mfu": None, "total_seconds": None, "cost_usd": None,
        "step_breakdown": {"matmul": 0.1}, "pace": {"device": 1.0, "host": 1.0, "links": 1.0}, "batch_fill": 1.0,
    },
    "expect": {
        "accelerator": "cpu", "device_memory_bytes": 0, "host_bytes": 0, "disk_bytes": 0,
        "link_bytes_per_second": 0.0, "network_bytes_per_second": 0.0, "parameters": 0, "trainable_parameters": 0,
        "float8_linears": 0,
    },
}  # fmt: skip


def job_value(**changes: Any) -> dict[str, Any]:
    """``training__max_steps=2`` sets one key of a part; ``dataset__path`` one of the first dataset's."""
    value: dict[str, Any] = json.loads(json.dumps(BASE))
    for name, new in changes.items():
        part, _, key = name.partition("__")
        if part == "dataset":
            value["datasets"][0][key] = new
        elif key:
            value[part][key] = new
        else:
            value[part] = new
    return value


def write_job(folder: Path, **changes: Any) -> Path:
    path = folder / "job.json"
    path.write_text(json.dumps(job_value(**changes)))
    return path


def make_job(folder: Path, **changes: Any) -> Job:
    return read_job(write_job(folder, **changes))
