"""Finished runs of a few layers, of every family, with tokenizers that are trained here on Python's own texts."""

from __future__ import annotations

import argparse
import json
import logging
import re
from functools import cache
from pathlib import Path
from typing import Any

DOCUMENTS = [m.__doc__ or "" for m in (argparse, json, logging, re, str, dict, list, int)]
WIDTHS = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = WIDTHS | {"num_key_value_heads": 2}
LATENT = WIDTHS | {
    "num_key_value_heads": 4, "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2,
    "moe_intermediate_size": 64, "first_k_dense_replace": 1, "kv_lora_rank": 32, "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16, "v_head_dim": 32, "n_group": 1, "topk_group": 1,
}  # fmt: skip
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", GROUPED | {"tie_word_embeddings": False}),
    "mistral": ("Mistral", GROUPED | {"sliding_window": None, "head_dim": 32}),
    "mixtral": ("Mixtral", GROUPED | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2": ("Qwen2", GROUPED | {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", GROUPED | {"head_dim": 48}),
    "qwen3_moe": (
        "Qwen3Moe",
        GROUPED
        | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "head_dim": 32}
        | {"norm_topk_prob": True},
    ),
    "gemma2": ("Gemma2", GROUPED | {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 64}),
    "gemma3": (
        "Gemma3",
        GROUPED | {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 64, "num_hidden_layers": 6},
    ),
    "phi3": ("Phi3", GROUPED | {"sliding_window": None, "pad_token_id": 0}),
    "deepseek_v2": ("DeepseekV2", LATENT | {"q_lora_rank": None, "topk_method": "greedy"}),
    "deepseek_v3": ("DeepseekV3", LATENT | {"q_lora_rank": 64}),
    "falcon": ("Falcon", {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}),
    "gpt_neox": ("GPTNeoX", WIDTHS | {"intermediate_size": 512}),
    "olmo2": ("Olmo2", GROUPED),
    "gpt2": ("GPT2", {"n_embd": 128, "n_layer": 2, "n_head": 4}),
    "generic": ("Granite", GROUPED),
}
"""Family -> transformers' name of it, and its configuration. Of one that must have it: grouped heads, windows, experts."""


def config_of(family: str, **changes: Any) -> Any:
    """transformers' configuration. ``changes`` come last."""
    import transformers

    name, settings = FAMILIES[family]
    text = "Text" if name == "Gemma3" else ""
    made = {**settings, "max_position_embeddings": 256, "initializer_range": 0.08, **changes}
    config = getattr(transformers, f"{name}{text}Config")(**made)
    config.architectures = [f"{name}LMHeadModel" if family == "gpt2" else f"{name}ForCausalLM"]
    return config


def run_of(family: str, folder: Path, *, pieces: bool = False, **changes: Any) -> Path:
    """A run's output folder with a random model whose logits depend on every layer. ``pieces``: SentencePiece's tokens."""
    import torch
    import transformers

    torch.manual_seed(0)
    tokenizer = tokenizer_of(pieces)
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    padded = {"vocab_size": len(tokenizer) + 24}  # as many models pad it
    model = transformers.AutoModelForCausalLM.from_config(config_of(family, **padded | special | changes))
    for parameter in model.parameters():  # norms and biases too: one that is lost or scaled must show
        if parameter.ndim < 2:
            parameter.data += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(folder / "final")
    tokenizer.save_pretrained(folder / "final")
    keep(folder, tokenizer)
    return folder


def keep(folder: Path, tokenizer: Any) -> None:
    from axoc_runtime.exports.texts import keep_texts

    rows = [{"input_ids": ids, "labels": ids} for t in DOCUMENTS if (ids := tokenizer(t)["input_ids"][:120])]
    keep_texts(folder / "provenance", rows, rows[:2])


@cache
def tokenizer_of(pieces: bool) -> Any:
    """Byte-level BPE as GPT-2's, or SentencePiece's BPE with bytes to fall back on as Llama 2's."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", "<s>", "</s>"]
    if pieces:
        inner = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        special += [f"<0x{i:02X}>" for i in range(256)]
    else:
        inner = Tokenizer(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
    alphabet = [] if pieces else pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1000, special_tokens=special, initial_alphabet=alphabet)
    inner.train_from_iterator(DOCUMENTS, trainer)
    if pieces:  # bytes are pieces like others, not special tokens
        value = json.loads(inner.to_str())
        value["added_tokens"] = [t for t in value["added_tokens"] if not t["content"].startswith("<0x")]
        inner = Tokenizer.from_str(json.dumps(value))
        inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    else:
        inner.add_special_tokens([AddedToken(t, special=True) for t in special])
    made = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    made.chat_template = (
        "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}</s>\n{% endfor %}"
        "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
    )
    return made
