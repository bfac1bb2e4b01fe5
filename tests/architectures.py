"""Architectures of transformers that axoc has no family of, at sizes of a second: what the generic path is tried on."""

from __future__ import annotations

import contextlib
import copy
import json
from pathlib import Path
from typing import Any, Final

from axoc import driver
from axoc.emit.write import write_bundle
from axoc.ir.plan import Plan
from forked import Server

SIZES: Final[dict[str, Any]] = {
    "vocab_size": 104, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 256, "bos_token_id": 98, "eos_token_id": 99,
    "pad_token_id": 97,
    # experts
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64,
    "shared_expert_intermediate_size": 64, "moe_num_experts": 4, "moe_k": 2, "n_group": 1, "topk_group": 1,
    "first_k_dense_replace": 1,
    # names of their own
    "ffn_dim": 128, "d_model": 64, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_layers": 2, "n_heads": 4, "max_seq_len": 256,
    "word_embed_proj_dim": 64, "n_positions": 256, "rotary_dim": 8, "decoder_layers": 2, "decoder_attention_heads": 4,
    "decoder_ffn_dim": 128,
    # state spaces
    "state_size": 16, "time_step_rank": 8, "mamba_d_state": 16, "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_expand": 2,
    "mamba_num_heads": 8, "mamba_head_dim": 16, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "linear_key_head_dim": 16, "linear_value_head_dim": 16,
}  # fmt: skip
"""Of each architecture those that its configuration has."""
LATENT: Final = {
    "num_key_value_heads": 4, "kv_lora_rank": 32, "q_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 16,
    "v_head_dim": 16, "head_dim": 16,
}  # fmt: skip
HYBRID: Final = {"layer_types": ["linear_attention", "full_attention"]}
OWN: Final[dict[str, dict[str, Any]]] = {
    "axk1": LATENT,
    "axk2": LATENT,
    "bamba": {"attn_layer_indices": [1]},
    "deepseek_v32": LATENT | {"index_topk": 4},
    "glm_moe_dsa": LATENT | {"index_topk": 4},
    "dots1": {"n_shared_experts": 1},
    "falcon_h1": {"mamba_d_ssm": 128},
    "glm4_moe_lite": LATENT,
    "gemma3n_text": {"vocab_size_per_layer_input": 104, "hidden_size_per_layer_input": 16, "laurel_rank": 8,
                     "layer_types": ["sliding_attention", "full_attention"], "num_kv_shared_layers": 0},
    "gemma4_text": {"vocab_size_per_layer_input": 104, "hidden_size_per_layer_input": 16, "global_head_dim": 16,
                    "layer_types": ["sliding_attention", "full_attention"]},
    "kimi_linear": HYBRID | LATENT,
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "num_layers": 2, "num_heads": 4},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1,
              "num_hidden_layers": 4},
    "mamba2": {"num_heads": 8, "head_dim": 16, "n_groups": 1, "expand": 2},
    "minicpm3": LATENT,
    "qwen3_5_moe_text": HYBRID,
    "qwen3_5_text": HYBRID,
    "qwen4_exp_text": HYBRID,
    "qwen3_next": HYBRID,
    "recurrent_gemma": {"num_hidden_layers": 3, "lru_width": 64},
    "xlstm": {"hidden_size": 64, "embedding_dim": 64, "num_heads": 4},
    "youtu": LATENT,
    "zamba": {"num_hidden_layers": 6, "attn_layer_period": 3, "attn_layer_offset": 2, "n_mamba_heads": 2,
              "attention_head_dim": 32, "attention_hidden_size": 128, "num_key_value_heads": 4,
              "layers_block_type": ["mamba", "mamba", "hybrid"] * 2},
    "zaya": {"num_experts_per_tok": 1},
    "zamba2": {"num_hidden_layers": 6, "n_mamba_heads": 8, "mamba_headdim": 16, "num_mem_blocks": 1, "hybrid_layer_ids": [2, 5],
               "layer_types": ["linear_attention", "linear_attention", "hybrid"] * 2, "num_key_value_heads": 4},
}  # fmt: skip
"""What they need beside."""


def config_of(model_type: str) -> Any:
    """transformers' configuration, as AutoConfig makes it, and small."""
    from transformers import AutoConfig, AutoModelForCausalLM

    usual = AutoConfig.for_model(model_type)
    there, aliases = usual.to_dict(), getattr(type(usual), "attribute_map", {})
    sizes = {k: v for k, v in SIZES.items() if k in there or aliases.get(k) in there}
    sizes = {k: v for k, v in sizes.items() if aliases.get(k) not in sizes}
    made = AutoConfig.for_model(model_type, **sizes | OWN.get(model_type, {}))
    made.architectures = [AutoModelForCausalLM._model_mapping[type(made)].__name__]
    return made


def size_of(model_type: str) -> int:
    """Parameters of the small model, which takes no memory to count."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return int(AutoModelForCausalLM.from_config(config_of(model_type)).num_parameters())


def make_model(model_type: str, folder: Path, tokenizer: Any) -> int:
    """Random weights in a folder, as a user's own model would lie there; its number of parameters."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config_of(model_type), dtype=torch.float32)
    model.save_pretrained(folder)
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.pad_token = tokenizer.unk_token
    tokenizer.save_pretrained(folder)
    return int(model.num_parameters())


def make_bundle(work: Path, name: str, *, adapter: str, **changes: Any) -> Path:
    """Spec to plan to bundle, by the compiler. Returns its job. ``changes``: of parts of the spec."""
    spec = {
        "name": name,
        "model": {"id": "model", "dtype": "float32"},
        "adapter": adapter if adapter == "none" else {"type": adapter, "rank": 4, "alpha": 8},
        "dataset": {"path": "data.jsonl", "max_seq_length": 64, "validation_split": 0.1},
        "training": {"max_steps": 2, "global_batch_size": 2, "learning_rate": 1e-3, "logging_steps": 1},
        "distributed": {"gpu_count": 1, "mixed_precision": "no"},
        "export": {"formats": ["safetensors"]},
        "output_dir": f"out-{name}-{adapter}",
        "inventory": "cpu",
    }
    for part, values in changes.items():
        spec[part] = {**spec.get(part, {}), **values}  # type: ignore[dict-item]
    file = work / f"{name}-{adapter}.yaml"
    file.write_text(json.dumps(spec))
    with contextlib.chdir(work):
        planned = driver.plan(file, None)
        out = work / f"bundle-{name}-{adapter}"
        assert isinstance(planned.result, Plan), planned.result
        write_bundle(driver.bundle(planned, out), out)
    return out / "job.json"


def run(server: Server, work: Path, job: Path) -> str:
    """Preflight, data, training, merge and export, by the bundle's job. Returns what was printed; AssertionError with its
    end where one fails."""
    log = work / "log"
    log.unlink(missing_ok=True)
    for command in ("preflight", "prepare", "train", "finish"):
        server.start(job, log, command=command)
        assert set(server.wait()) == {0}, f"{command}: {log.read_text()[-3000:]}"
    return log.read_text()
