"""Random training configurations of every model family, to hold the closed form against the trace.

Half are published shapes, half are drawn: widths, heads, head size, vocabulary, tying. A configuration is one JSON object
with the keys of a measured row (measure.py) and the model's whole config.json under ``config``.
"""

from __future__ import annotations

import json
import random
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

CATALOG: Final = Path(__file__).resolve().parent.parent / "compiler/axoc/facts/data/models"
FAMILIES: Final = {
    "llama": 4, "mistral": 3, "qwen2": 3, "qwen3": 3, "gemma2": 3, "gemma3": 3, "phi3": 3, "olmo2": 3, "gpt_neox": 2,
    "gpt2": 2, "falcon": 2, "mixtral": 2, "qwen3_moe": 2, "deepseek_v2": 1, "deepseek_v3": 1, "granite": 1,
}  # fmt: skip
"""model_type and how often it is drawn. Granite is one that axoc does not know: it is planned as `generic`."""
LIGER: Final = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "olmo2")
"""Families whose dense blocks Liger patches and the trace's stand-ins were checked for."""
EXPERTS: Final = ("mixtral", "qwen3_moe", "deepseek_v2", "deepseek_v3")
"""Their grouped product takes bf16 alone (torch._grouped_mm), so neither fp32 weights nor k-bit preparation."""
ATTENTION: Final[dict[str, list[str]]] = {
    "gpt_neox": ["query_key_value", "dense"],
    "falcon": ["query_key_value", "dense"],
    "phi3": ["qkv_proj", "o_proj"],
    "gpt2": ["c_attn"],
    "deepseek_v2": ["kv_a_proj_with_mqa", "kv_b_proj", "o_proj"],
    "deepseek_v3": ["q_a_proj", "q_b_proj", "o_proj"],
}
"""Names of attention's projections where they are not Llama's."""
TARGETS: Final = (["q_proj", "v_proj"], ["q_proj", "k_proj", "v_proj", "o_proj"])
GRANITE: Final[dict[str, Any]] = {
    "architectures": ["GraniteForCausalLM"],
    "model_type": "granite",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 40,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 49152,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
    "embedding_multiplier": 12.0,
    "logits_scaling": 8.0,
    "residual_multiplier": 0.22,
    "attention_multiplier": 0.015625,
}
"""The shape of granite-3.0-2b-base."""
SELDOM: Final = 0.06
"""Share of configurations with a knob that few people turn."""


def configurations(count: int, seed: int) -> list[dict[str, Any]]:
    """The same ones for the same seed."""
    draw = random.Random(seed)
    names, shares = list(FAMILIES), list(FAMILIES.values())
    return [{"id": f"r{n:04}", **one(draw, draw.choices(names, shares)[0])} for n in range(count)]


def one(draw: random.Random, family: str) -> dict[str, Any]:
    config = shape(draw, family)
    row: dict[str, Any] = {
        "model": family,
        "config": config,
        "mixed": draw.choices(("bf16", "fp16", "no"), (8, 1, 2))[0],
    }
    row["method"] = draw.choices(("full", "lora", "qlora"), (5, 4, 0 if family in EXPERTS else 2))[0]
    row["dtype"] = "nf4" if row["method"] == "qlora" else draw.choice(("fp32", "bf16"))
    if family in EXPERTS:
        row |= {"dtype": "bf16", "mixed": draw.choice(("bf16", "no"))}
    if row["method"] == "qlora" and row["mixed"] == "no":
        row["mixed"] = "bf16"
    if family == "gpt2" and row["method"] == "qlora":  # the trace leaves its Conv1D unquantized
        row |= {"method": "lora", "dtype": "bf16"}
    if row["mixed"] == "fp16" and row["dtype"] == "bf16":  # refused by the planner
        row["mixed"] = "bf16"
    if row["method"] != "full":
        row |= adapter(draw, family)
    if row["method"] == "qlora":
        row["double_quant"] = draw.random() < 0.7
    return in_reach(row | knobs(draw, family, config))


def in_reach(row: dict[str, Any]) -> dict[str, Any]:
    """fp32 attention with a mask or dropout runs the CPU's kernels in the trace, not CUDA's: there it is made eager."""
    special = row["model"] in ("gpt2", "falcon") or row["config"].get("sliding_window")
    if row["mixed"] == "no" and row["dtype"] == "fp32" and special:
        row |= {"attention": "eager", "seq": min(row["seq"], 2048)}
    return row


def knobs(draw: random.Random, family: str, config: dict[str, Any]) -> dict[str, Any]:
    """How it is trained; the batch is kept to what a GPU of today might hold."""
    eager = draw.random() < 0.15
    longest = min(config.get("n_positions", 1 << 20), 2048 if eager else 8192)
    seq = min(longest, draw.choice((512, 777, 1000, 1024, 1536, 2048, 2048, 3000, 4096, 8192)))
    depth = draw.choices((2, 3, 4), (7, 2, 1))[0]
    gc = draw.choices((False, True, "some"), (4, 4, 1))[0]
    return {
        "attention": "eager" if eager else "sdpa",
        "liger": family in LIGER and draw.random() < 0.35,
        "seq": seq,
        "mbs": draw.choice([m for m in (1, 2, 3, 4, 8) if m * seq <= 16384]),
        "layers": max(3, depth) if gc == "some" else depth,
        "deep": gc != "some" and family != "gemma3" and draw.random() < 0.12,
        "gc": draw.choice((1, 2)) if gc == "some" else gc,
        "optim": draw.choices(
            ("adamw_torch_fused", "adamw_torch", "adamw_bnb_8bit", "adafactor", "sgd"), (6, 1, 2, 1, 1)
        )[0],
        "ga": 2 if draw.random() < 0.25 else 1,
        "eval": draw.random() < 0.3,
        "ddp": draw.random() < SELDOM,
    }


def adapter(draw: random.Random, family: str) -> dict[str, Any]:
    own = ATTENTION.get(family)
    targets = draw.choice(["all-linear", *([own] if own else TARGETS)])
    if family in EXPERTS and draw.random() < 0.7:
        targets = own or TARGETS[1]
    found = {"rank": draw.choice((4, 8, 16, 32, 64, 128)), "dropout": draw.choice((0.0, 0.0, 0.05)), "targets": targets}
    if draw.random() < SELDOM and targets != "all-linear":
        found["dora"] = True
    draw.random()
    return found


def shape(draw: random.Random, family: str) -> dict[str, Any]:
    """A config.json, deep as published."""
    found = published(draw, family)
    return found if draw.random() < 0.5 else varied(draw, family, found)


def published(draw: random.Random, family: str) -> dict[str, Any]:
    if family == "granite":
        return dict(GRANITE)
    return deepcopy(draw.choice(CONFIGS[family]))


def catalog() -> dict[str, list[dict[str, Any]]]:
    """Published config.json by model_type; of a model that also sees its language part."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(CATALOG.glob("*.json")):
        config = json.loads(path.read_text()).get("config")
        if config is not None:
            kind = config["model_type"]
            config = {"model_type": f"{kind}_text", **config["text_config"]} if "text_config" in config else config
            found.setdefault(kind.removesuffix("_text"), []).append(config)
    return found


CONFIGS: Final = catalog()


def varied(draw: random.Random, family: str, config: dict[str, Any]) -> dict[str, Any]:
    """Other widths. What a family derives from others (head sizes of GPT-2, of latent attention) stays derived."""
    head = draw.choice((64, 64, 80, 96, 128, 128, 256 if family.startswith("gemma") else 128))
    heads = draw.choice((8, 12, 16, 20, 24, 32, 40))
    hidden = head * heads
    vocab = draw.choice((32000, 32064, 49152, 50257, 65024, 100352, 128256, 151936, 256000))
    tied = draw.random() < 0.4
    if family == "gpt2":
        return {**config, "n_embd": hidden, "n_head": heads, "vocab_size": vocab}
    made = {
        **config,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "vocab_size": vocab,
        "tie_word_embeddings": tied,
    }
    if family.startswith("deepseek"):
        return made | {"num_key_value_heads": heads}
    made["head_dim"] = head
    if family not in ("gpt_neox", "falcon"):
        made["num_key_value_heads"] = draw.choice([k for k in (1, 2, 4, 8, heads) if heads % k == 0])
        if family not in ("phi3", "granite") and draw.random() < 0.4:  # heads of a size apart
            made["hidden_size"] = hidden = 128 * draw.choice((6, 8, 12, 16, 20, 24, 32))
    if family == "falcon":
        grouped = {"num_kv_heads": 4, "parallel_attn": draw.random() < 0.8}
        return {k: v for k, v in made.items() if k != "head_dim"} | grouped
    width = 64 * round(hidden * draw.choice((2.0, 2.67, 3.5, 4.0, 6.0)) / 64)
    if family == "qwen3_moe":
        return made | {
            "moe_intermediate_size": draw.choice((384, 768, 1536)),
            "num_experts": draw.choice((16, 32, 64, 128)),
        }
    if draw.random() < 0.2 and family in ("mistral", "phi3"):
        made["sliding_window"] = draw.choice((512, 1024, 4096))
    return made | {"intermediate_size": width}
