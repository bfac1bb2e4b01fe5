"""Random configurations of what random_configurations.py leaves out: strategies that share the work, packed rows, the chunked
loss. A row has its keys, and ``strategy``, ``world``, ``packing`` and ``kernels``."""

from __future__ import annotations

import random
from typing import Any, Final

from axoc.facts.inventory import parse_inventory
from axoc.facts.models import lookup_model
from axoc.facts.varlen import obstacles
from random_configurations import EXPERTS, FAMILIES, in_reach, one

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
