"""Rules of dtypes and what the hardware computes."""

from __future__ import annotations

from typing import Final

from axoc.facts.varlen import FLASH_4, FLASH_4_CAPABILITY
from axoc.search.rules.base import Context, Rule
from axoc.search.rules.versions import Versions
from axoc.search.space import Combination

AMPERE: Final = (8, 0)


def bf16_hardware(context: Context, _: Combination) -> str | None:
    scenario = context.scenario
    if "bf16" not in (scenario.mixed_precision, "bf16" if scenario.dtype == "bfloat16" else ""):
        return None
    if context.is_nvidia and context.capability < AMPERE:
        return f"{scenario.cluster.accelerator.name} has no bfloat16 matrix units (compute capability below 8.0)"
    return None


def fp16_weights(context: Context, _: Combination) -> str | None:
    """Beside an adapter too: modules that are trained whole are of the model's dtype (PEFT casts adapters alone)."""
    scenario = context.scenario
    whole = scenario.is_full or scenario.sizes.saved or scenario.objective.loss == "score"
    if scenario.dtype == "float16" and whole and not scenario.quantized:
        return "float16 weights cannot be trained: the gradient scaler needs float32 weights to unscale into"
    return None


def rounding(context: Context, c: Combination) -> str | None:
    """DeepSpeed steps on masters of its own."""
    if context.request.training.bf16_update == "stochastic" and c.strategy.startswith("zero"):
        return f"{c.strategy} updates float32 masters, and rounds what is copied of them to the nearest"
    return None


def flash_hardware(context: Context, _: Combination) -> str | None:
    if context.scenario.attention == FLASH_4:
        return _flash_4_hardware(context)
    if context.scenario.attention != "flash_attention_2":
        return None
    if not context.is_nvidia or context.capability < AMPERE:
        return f"FlashAttention 2 needs an Ampere GPU or newer, and this is {context.scenario.cluster.accelerator.name}"
    return None


def _flash_4_hardware(context: Context) -> str | None:
    if context.is_nvidia and context.capability >= FLASH_4_CAPABILITY:
        return None
    return f"flash attention 4 needs a Hopper GPU or newer, and this is {context.scenario.cluster.accelerator.name}"


def liger_hardware(context: Context, _: Combination) -> str | None:
    if context.scenario.kernels == "liger" and context.scenario.on_cpu:
        return "Liger's kernels are Triton programs and need a GPU"
    return None


RULES: Final = (
    Rule(
        id="bf16-needs-ampere",
        check=bf16_hardware,
        fix="set model.dtype: float32 and distributed.mixed_precision: fp16",
        link="https://docs.nvidia.com/cuda/cuda-c-programming-guide/index.html#compute-capabilities",
    ),
    Rule(
        id="fp16-weights",
        check=fp16_weights,
        fix="set model.dtype: float32 (with mixed_precision: fp16) or bfloat16",
        link="https://github.com/huggingface/transformers/issues/23165",
        versions=(Versions(library="torch"),),
    ),
    Rule(
        id="stochastic-rounding-masters",
        check=rounding,
        fix="set training.bf16_update: nearest, or distributed.type: fsdp or ddp",
        link="https://arxiv.org/abs/2010.06192",
        versions=(Versions(library="deepspeed"),),
    ),
    Rule(
        id="flash-needs-ampere",
        check=flash_hardware,
        fix="set model.attention: sdpa",
        link="https://github.com/hiyouga/LLaMA-Factory/issues/3508",
        versions=(Versions(library="flash-attn", first="2.0"),),
    ),
    Rule(
        id="liger-needs-gpu",
        check=liger_hardware,
        fix="set model.kernels: none",
        link="https://github.com/linkedin/Liger-Kernel",
        versions=(Versions(library="liger-kernel"),),
    ),
)
