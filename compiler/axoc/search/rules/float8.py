"""What ``mixed_precision: fp8`` needs, and what it was not tried with (runtime/axoc_runtime/kernels/float8.py)."""

from __future__ import annotations

from typing import Final

from axoc.facts.float8 import HARDWARE, obstacles
from axoc.search.rules.base import Context, Rule
from axoc.search.rules.versions import Versions
from axoc.search.space import Combination

RUNTIME: Final = (Versions(library="axoc-runtime", first="0.1"),)
TRIED: Final = ("sft", "pretrain")
BF16: Final = "set distributed.mixed_precision: bf16"


def asked(context: Context) -> bool:
    return context.scenario.mixed_precision == "fp8"


def hardware(context: Context, _: Combination) -> str | None:
    accelerator = context.scenario.cluster.accelerator
    if not asked(context) or (context.is_nvidia and context.capability >= HARDWARE):
        return None
    if context.is_nvidia:
        return f"{accelerator.name} does not multiply float8 (compute capability below 8.9)"
    return f"float8 of the kinds e4m3fn and e5m2 is multiplied by NVIDIA's GPUs from Ada on, and this is {accelerator.name}"


def layers(context: Context, _: Combination) -> str | None:
    return next(obstacles(context.scenario.model), None) if asked(context) else None


def compiled(context: Context, _: Combination) -> str | None:
    if asked(context) and not context.scenario.compile:
        return "without compiled blocks each cast to float8 is several kernels more, which take longer than it gains"
    return None


def strategy(context: Context, c: Combination) -> str | None:
    if asked(context) and c.strategy.startswith("zero"):
        return f"DeepSpeed's {c.strategy} was not tried with products in float8"
    return None


def tensor_parallel(context: Context, c: Combination) -> str | None:
    if asked(context) and c.tensor_parallel > 1:
        return "a matrix that is split over ranks has a largest value on each, and float8's scale is of the whole"
    return None


def quantized(context: Context, _: Combination) -> str | None:
    if asked(context) and context.scenario.quantization != "none":
        return (
            f"weights in {context.scenario.quantization} are multiplied in 16 bits by the library that quantized them"
        )
    return None


def objective(context: Context, _: Combination) -> str | None:
    wanted = context.request.training.objective
    if asked(context) and wanted not in TRIED:
        return f"objective {wanted} holds the model against one in 16 bits, and was not tried with products in float8"
    return None


RULES: Final = (
    Rule(
        id="fp8-hardware",
        check=hardware,
        fix=BF16,
        link="https://docs.nvidia.com/cuda/cuda-c-programming-guide/index.html#compute-capabilities",
    ),
    Rule(
        id="fp8-layers",
        check=layers,
        fix=BF16,
        link="https://docs.nvidia.com/cuda/cublas/index.html#tensor-core-usage",
        versions=RUNTIME,
    ),
    Rule(id="fp8-objective", check=objective, fix=BF16, link=None, versions=RUNTIME),
    Rule(id="fp8-quantized", check=quantized, fix="set model.quantization: none", link=None, versions=RUNTIME),
    Rule(
        id="fp8-zero",
        check=strategy,
        fix="set distributed.type: fsdp or ddp",
        link=None,
        versions=RUNTIME,
    ),
    Rule(
        id="fp8-tensor-parallel",
        check=tensor_parallel,
        fix="set distributed.model_parallel_size: 1",
        link=None,
        versions=RUNTIME,
    ),
    Rule(id="fp8-compile", check=compiled, fix="set model.compile: auto", link=None, versions=RUNTIME),
)
