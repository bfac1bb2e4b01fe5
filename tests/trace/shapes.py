"""Small models and their jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from axoc_runtime.job import Job
from runtime.jobs import make_job

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 512,
    "max_position_embeddings": 256,
    "num_hidden_layers": 8,
}
LLAMA: dict[str, Any] = {"model_type": "llama", "tie_word_embeddings": False, **SIZES}
TIED: dict[str, Any] = {**LLAMA, "tie_word_embeddings": True}
MIXTRAL: dict[str, Any] = {
    "model_type": "mixtral",
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "sliding_window": None,
    **SIZES,
}
GEMMA2: dict[str, Any] = {"model_type": "gemma2", "sliding_window": 32, "query_pre_attn_scalar": 16, **SIZES}
BLOCKS = {"llama": "LlamaDecoderLayer", "mixtral": "MixtralDecoderLayer", "gemma2": "Gemma2DecoderLayer"}


def job(folder: Path, config: dict[str, Any], **changes: Any) -> Job:
    """One H100, 2 x 64 tokens, bf16 autocast over fp32 weights, no evaluation; ``training__...`` changes a key."""
    distributed = {
        "strategy": "single",
        "device": "cuda",
        "world_size": 1,
        "nodes": 1,
        "processes_per_node": 1,
        "data_parallel": 1,
        "tensor_parallel": 1,
        "replicate_degree": 1,
        "mixed_precision": "bf16",
        "offload": "none",
        "config": None,
    }
    base = {
        "model__decoder_block": BLOCKS.get(config["model_type"], ""),
        "model__family": config["model_type"],
        "training__micro_batch_size": 2,
        "training__gradient_accumulation_steps": 1,
        "dataset__validation_split": 0.0,
        "dataset__max_seq_length": 64,
        "expect__accelerator": "h100-sxm-80gb",
        "distributed": distributed,
    }
    return make_job(folder, **{**base, **changes})
