"""Random configurations of what random_configurations.py leaves out: strategies that share the work, packed rows, the chunked
loss. A row has its keys, and ``strategy``, ``world``, ``packing`` and ``kernels``."""

from __future__ import annotations

import random
from typing import Any, Final

from axoc.facts.inventory import parse_inventory
from axoc.facts.models import lookup_model
from axoc.facts.varlen import obstacles
from random_configurations import EXPERTS, FAMILIES, adapter, in_reach, one

SEED: Final = 20261126
STRATEGIES: Final = {"single": 3, "ddp": 1, "fsdp": 4, "zero1": 2, "zero2": 2, "zero3": 3}
"""And how often each is drawn."""
H100: Final = parse_inventory("h100-sxm-80gb", None, None)[0].accelerator
WORLDS: Final = (2, 3, 4, 8, 16, 32)


def shared(count: int, seed: int = SEED) -> list[dict[str, Any]]:
    """The same ones for the same seed."""
    draw = random.Random(seed)
    names, shares = list(FAMILIES), list(FAMILIES.values())
    return [{"id": f"s{n:04}", **drawn(draw, draw.choices(names, shares)[0])} for n in range(count)]


def drawn(draw: random.Random, family: str) -> dict[str, Any]:
    row = one(draw, family) | {"deep": False, "ddp": False}
    strategy = draw.choices(list(STRATEGIES), list(STRATEGIES.values()))[0]
    row |= {"strategy": strategy, "world": 1 if strategy == "single" else draw.choice(WORLDS)}
    chunked, packed = draw.random() < 0.4, draw.random() < 0.4
    row["kernels"] = "liger" if row["liger"] else "chunked" if chunked else "none"
    if strategy.startswith(("zero", "fsdp")):
        settled(row)
    row["packing"] = packed and row["mixed"] == "bf16" and packs(row["config"])
    return row | {"attention": "varlen"} if row["packing"] else in_reach(row)


def packs(config: dict[str, Any]) -> bool:
    """Whether torch's attention keeps this model's documents apart, as packed rows are planned."""
    model = lookup_model(None, config, "config.json", "auto")[0]
    return not obstacles(model, H100, "bfloat16")


def settled(row: dict[str, Any]) -> None:
    """What sharded plans are made of: bfloat16, adapters beside bfloat16 weights, no quantized ones. A checkpoint that
    recomputes frozen weights fails under ZeRO-3, which has let go of them."""
    row["mixed"] = "bf16"
    if row["method"] == "qlora":
        row |= {"method": "lora", "dtype": "bf16"}
        row.pop("double_quant")
    if row["method"] == "lora":
        row["dtype"] = "bf16"
        if row["strategy"] == "zero3":
            row["gc"] = False
    if row["model"] in EXPERTS:
        row["dtype"] = "bf16"
    if row["optim"] not in ("adamw_torch_fused", "adamw_torch", "sgd"):  # others want whole parameters
        row["optim"] = "adamw_torch_fused"


def offloaded(first: int = 300, count: int = 900, every: int = 4) -> list[dict[str, Any]]:
    """Of ``shared``'s those under ZeRO with torch's AdamW, its states on the host; under ZeRO-3 every second time weights too."""
    rows = [
        r for r in shared(count)[first:] if r["strategy"].startswith("zero") and r["optim"].startswith("adamw_torch")
    ]
    kinds = ("optimizer", "optimizer+parameters")
    return [r | {"offload": kinds[n % 2 if r["strategy"] == "zero3" else 0]} for n, r in enumerate(rows[::every])]


COMPILED: Final = {"llama": 3, "mistral": 2, "qwen2": 2, "qwen3": 2, "gemma2": 2, "gemma3": 2, "phi3": 2}
"""Families whose blocks are compiled, and how often each is drawn."""


def compiled(count: int, seed: int = SEED + 1) -> list[dict[str, Any]]:
    """With compiled blocks on one GPU: three of four with adapters, every third of these with PEFT's own casts of their inputs."""
    draw = random.Random(seed)
    names, shares = list(COMPILED), list(COMPILED.values())
    return [{"id": f"c{n:04}", **compiled_one(draw, draw.choices(names, shares)[0])} for n in range(count)]


def compiled_one(draw: random.Random, family: str) -> dict[str, Any]:
    """Without dropout, which the trace could not compile when these were drawn. Deep enough for the blocks to be what counts."""
    row = one(draw, family)
    while row["config"]["hidden_size"] % row["config"].get("num_attention_heads", 1):
        row = one(draw, family)
    row |= {"ddp": False, "compile": True, "mixed": "bf16", "dora": False, "layers": max(row["layers"], 3)}
    row["deep"] = row["gc"] in (False, True) and family != "gemma3" and draw.random() < 0.5
    method, dtype = draw.choices(("lora", "full"), (3, 1))[0], draw.choices(("bf16", "fp32"), (3, 1))[0]
    for name in ("rank", "dropout", "targets", "double_quant"):
        row.pop(name, None)
    casts = draw.random() < 1 / 3
    own = adapter(draw, family) | {"dropout": 0.0, "dora": False, "casts": casts, "between": not casts}
    row |= {"method": method, "dtype": dtype} | (own if method == "lora" else {})
    row["kernels"] = draw.choices(("chunked", "liger", "none"), (2, 2, 1))[0]
    row["liger"] = False  # beside compiled blocks Liger's loss alone is used
    row["packing"] = draw.random() < 0.5 and packs(row["config"])
    return row | {"attention": "varlen"} if row["packing"] else row
