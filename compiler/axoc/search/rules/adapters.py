"""What PEFT's adapters do not go with."""

from __future__ import annotations

from typing import Final

from axoc.facts.adapters import targeted_experts
from axoc.search.rules.base import Context, Rule
from axoc.search.rules.versions import Versions
from axoc.search.space import Combination

PEFT: Final = (Versions(library="peft"),)
SOURCE: Final = "https://github.com/huggingface/peft/blob/v0.21.2/src/peft"
CHANGING: Final = ("pissa", "loftq")
"""Ways to begin whose matrices are not zero together: the adapter is a part of the model from the first step on."""
FOUR_BITS: Final = ("nf4", "fp4")


def _init(context: Context) -> str:
    adapter = context.request.adapter
    return "default" if adapter is None else adapter.init


def pissa(context: Context, _: Combination) -> str | None:
    if _init(context) == "pissa" and context.scenario.quantization != "none":
        return f"pissa takes a part out of the weights, and {context.scenario.quantization} ones cannot be written to"
    return None


def loftq(context: Context, _: Combination) -> str | None:
    stored = context.scenario.quantization
    if _init(context) == "loftq" and stored not in FOUR_BITS:
        return (
            f"loftq begins with what 4-bit storage lost of each weight, and the weights are stored as {_named(stored)}"
        )
    return None


def magnitudes(context: Context, _: Combination) -> str | None:
    """What a changing start adds to the base is taken out of the saved adapter again, and DoRA is not linear in it."""
    adapter = context.request.adapter
    if adapter is not None and adapter.use_dora and adapter.init in CHANGING:
        return (
            f"an adapter that begins as {adapter.init} cannot be told from its base afterwards where DoRA scales both"
        )
    return None


def eight_bits(context: Context, _: Combination) -> str | None:
    """Seen of peft 0.21.2 with bitsandbytes 0.50.2 on a CPU: AttributeError when the magnitudes are made, before a first
    forward has quantized the weight (peft/utils/integrations.py, dequantize_bnb_weight)."""
    adapter = context.request.adapter
    if adapter is not None and adapter.use_dora and context.scenario.quantization == "int8":
        return (
            "DoRA's magnitudes are norms of the whole weight, which PEFT cannot read of an int8 one before it was used"
        )
    return None


def experts(context: Context, _: Combination) -> str | None:
    adapter = context.request.adapter
    if adapter is None or not targeted_experts(context.scenario.model, adapter.targets):
        return None
    if adapter.dropout > 0:
        return "PEFT adapts fused experts by adding to their weights, where no input is that could be dropped out"
    return f"PEFT has no {adapter.init} for fused experts" if adapter.init in CHANGING else None


def reference(context: Context, _: Combination) -> str | None:
    kind = context.scenario.objective.reference
    if kind in ("adapter", "precomputed") and _init(context) in CHANGING:
        return (
            f"the reference is the model without its adapter, and one that begins as {_init(context)} is a part of it"
        )
    return None


def _named(stored: str) -> str:
    return "they are published" if stored == "none" else stored


RULES: Final = (
    Rule(
        id="pissa-quantized",
        check=pissa,
        fix="set adapter.init: loftq (with nf4 or fp4), or model.quantization: none",
        link=f"{SOURCE}/tuners/lora/layer.py",
        versions=PEFT,
    ),
    Rule(
        id="loftq-four-bit",
        check=loftq,
        fix="set model.quantization: nf4, or adapter.init: pissa",
        link="https://arxiv.org/abs/2310.08659",
    ),
    Rule(
        id="dora-changing-init",
        check=magnitudes,
        fix="set adapter.init: default, or adapter.use_dora: false",
        link=f"{SOURCE}/tuners/lora/dora.py",
    ),
    Rule(
        id="dora-int8",
        check=eight_bits,
        fix="set model.quantization: nf4, or adapter.use_dora: false",
        link=f"{SOURCE}/utils/integrations.py",
        versions=PEFT,
    ),
    Rule(
        id="adapter-experts",
        check=experts,
        fix="set adapter.dropout: 0 and adapter.init: default, or list attention layers in adapter.targets",
        link=f"{SOURCE}/tuners/lora/layer.py",
        versions=PEFT,
    ),
    Rule(
        id="reference-changing-init",
        check=reference,
        fix="set adapter.init: default",
        link="https://arxiv.org/abs/2404.02948",
    ),
)
