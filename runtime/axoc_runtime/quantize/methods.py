"""Quantization methods by the name a user gives them: each is an export format with a variant, written and read as such."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from axoc_runtime.errors import EXIT_INPUTS, RuntimeFailure
from axoc_runtime.exports.base import NONE
from axoc_runtime.exports.request import read_requests

SHORT: Final = {
    "awq": "vllm:awq", "gptq": "vllm:gptq", "fp8": "vllm:fp8", "int8": "vllm:int8", "nf4": "safetensors:nf4",
    "fp4": "safetensors:fp4", "llm_int8": "safetensors:llm_int8", "gguf": "gguf:q4_k_m",
}  # fmt: skip
"""Method -> ``format:variant``. What is not here may be written so itself, e.g. ``gguf:q8_0``."""
TRAINABLE: Final = {"nf4": "nf4", "fp4": "fp4", "llm_int8": "int8"}
"""Variant -> model.quantization, where an adapter can be trained beside weights that are stored so."""
TRANSFORMERS: Final = ("safetensors", "vllm")
"""Formats that transformers reads."""


@dataclass(frozen=True, kw_only=True)
class Method:
    name: str
    """As the user wrote it; ``none`` for the model as it is."""
    format: str
    variant: str

    @property
    def written(self) -> str:
        """As ``export.formats`` has it."""
        return self.format if self.variant == NONE else f"{self.format}:{self.variant}"

    @property
    def file(self) -> str:
        return self.name.replace(":", "-")

    @property
    def trained_as(self) -> str | None:
        return TRAINABLE.get(self.variant) if self.format == "safetensors" else None


UNQUANTIZED: Final = Method(name=NONE, format="safetensors", variant=NONE)


def read_methods(names: tuple[str, ...]) -> tuple[Method, ...]:
    """In order, each once, the unquantized model first. Raises RuntimeFailure naming what there is not."""
    if not names:
        raise RuntimeFailure("no method is named", EXIT_INPUTS, f"take some of {', '.join(SHORT)}")
    found = [UNQUANTIZED, *(_method(name) for name in names if name != NONE)]
    return tuple({m.written: m for m in found}.values())


def _method(name: str) -> Method:
    if ":" not in name and name not in SHORT:
        fix = f"take some of {', '.join(SHORT)}, or write format:quantization, e.g. gguf:q8_0"
        raise RuntimeFailure(f"there is no quantization method {name!r}", EXIT_INPUTS, fix)
    request = read_requests([SHORT.get(name, name)])[0]
    return Method(name=name, format=request.exporter.name, variant=request.variant)
