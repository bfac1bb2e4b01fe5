"""Export formats: which quantizations each has, which families it can be made of, and what it takes on disk.

The runtime's plugins write them (runtime/axoc_runtime/exports); tests/contract/test_exports.py holds the two together, and
tests/exports makes each pair of family and format that is allowed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Final

from axoc.facts.families.registry import BUILTIN

GROUP: Final = "axoc_runtime.exporters"
NONE: Final = "none"
GGUF_BYTES: Final[Mapping[str, float]] = {
    "q8_0": 1.07, "q6_k": 0.83, "q5_k_m": 0.72, "q5_k_s": 0.7, "q4_k_m": 0.62, "q4_k_s": 0.6, "q4_0": 0.57,
    "q3_k_m": 0.5, "q2_k": 0.4,
}  # fmt: skip
"""A parameter: bits of a block over its weights, with the head's finer type."""
VLLM_BYTES: Final[Mapping[str, float]] = {"fp8": 1.1, "int8": 1.1, "gptq": 0.6, "awq": 0.6}
BITSANDBYTES_BYTES: Final[Mapping[str, float]] = {"nf4": 0.9, "fp4": 0.9, "llm_int8": 1.3}
"""Linear layers in 4 or 8 bits, embedding and head in 16."""
GGUF_FAMILIES: Final = (
    "llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "gemma2", "gemma3", "phi3", "olmo2",
)  # fmt: skip
MLX_FAMILIES: Final = (
    "llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "gemma3", "phi3", "deepseek_v3", "olmo2", "gpt_neox",
)  # fmt: skip
BUILDER_FAMILIES: Final = ("llama", "mistral", "qwen2", "qwen3", "gemma2")
"""That onnxruntime-genai's model builder makes a graph of, which alone can quantize one."""
GRAPH_FAMILIES: Final = (*BUILDER_FAMILIES, "gemma3", "phi3", "olmo2", "falcon", "gpt_neox", "gpt2")
EXPERTS: Final = ("mixtral", "qwen3_moe", "deepseek_v2", "deepseek_v3")
COMPRESSED_FAMILIES: Final = (
    "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "falcon", "gpt_neox", "olmo2", "generic",
)  # fmt: skip
"""Whose linear layers llm-compressor quantizes, and transformers reads back: not experts, and not GPT-2's own layers."""
ELSE: Final = "*"
_UNKNOWN: Final = "nothing is known of how it computes; once it is trained, axoc export tries, and keeps what its consumer computes alike"
_NO_GRAPH: Final[Mapping[str, str]] = dict.fromkeys(
    EXPERTS,
    "neither torch.onnx nor OpenVINO converts the grouped products of its experts, and onnxruntime-genai's builder does not "
    "know it",
)
WHY_NOT: Final[Mapping[str, Mapping[str, str]]] = {
    "gguf": {
        **dict.fromkeys(
            ("deepseek_v2", "deepseek_v3"), "llama.cpp keeps its latent attention in a form that is not written here"
        ),
        ELSE: "its layout in llama.cpp is not written here",
    },
    "mlx": {
        "gemma2": "mlx-lm computes it without its sliding window",
        ELSE: "mlx-lm was not seen to compute the same of it",
    },
    **dict.fromkeys(("onnx", "ort", "openvino", "tensorrt"), _NO_GRAPH),
}
"""Format -> family -> why there is no such export."""


@dataclass(frozen=True, kw_only=True)
class ExportFormat:
    bytes_a_parameter: Mapping[str, float]
    """By quantization; these are the quantizations that there are."""
    families: tuple[str, ...] | None = None
    """None: whatever transformers has."""
    quantized_families: tuple[str, ...] | None = None
    """Of its quantizations, where these are fewer."""
    largest_bytes: int | None = None
    """Of one file of this format."""
    as_stored: bool = False
    """Without a quantization its weights are those of the trained model, in their dtype."""
    tools: bool = True
    """Needs packages that only bundles with exports pin."""
    plain_tools: bool = True
    """Needs them without a quantization, too."""

    @property
    def quantizations(self) -> tuple[str, ...]:
        return tuple(q for q in self.bytes_a_parameter if q != NONE)


FORMATS: Final[Mapping[str, ExportFormat]] = {
    "safetensors": ExportFormat(bytes_a_parameter={NONE: 4.0, **BITSANDBYTES_BYTES}, as_stored=True, tools=False),
    "pytorch": ExportFormat(bytes_a_parameter={NONE: 4.0}, as_stored=True, tools=False),
    "vllm": ExportFormat(
        bytes_a_parameter={NONE: 2.0, **VLLM_BYTES}, quantized_families=COMPRESSED_FAMILIES, plain_tools=False
    ),
    "gguf": ExportFormat(bytes_a_parameter={NONE: 2.0, **GGUF_BYTES}, families=GGUF_FAMILIES),
    "onnx": ExportFormat(
        bytes_a_parameter={NONE: 4.0, "int4": 1.0}, families=GRAPH_FAMILIES, quantized_families=BUILDER_FAMILIES
    ),
    "ort": ExportFormat(bytes_a_parameter={NONE: 5.0}, families=GRAPH_FAMILIES, largest_bytes=2 << 30),
    "openvino": ExportFormat(bytes_a_parameter={NONE: 2.0}, families=GRAPH_FAMILIES),
    "tensorrt": ExportFormat(bytes_a_parameter={NONE: 4.0}, families=GRAPH_FAMILIES),
    "mlx": ExportFormat(
        bytes_a_parameter={NONE: 4.0, "int4": 0.7, "int8": 1.2},
        families=MLX_FAMILIES,
        as_stored=True,
        plain_tools=False,
    ),
}
PLUGIN: Final = ExportFormat(bytes_a_parameter={NONE: 4.0})
"""Of a format that a plugin brings: it knows itself what it can write."""


@dataclass(frozen=True, kw_only=True)
class AskedFormat:
    name: str
    quantization: str

    @property
    def written(self) -> str:
        return self.name if self.quantization == NONE else f"{self.name}:{self.quantization}"

    @property
    def facts(self) -> ExportFormat:
        return FORMATS.get(self.name, PLUGIN)

    def why_not(self, family: str) -> str | None:
        """The reason where it cannot be made of ``family``; one that a plugin brings is as little known as those without one."""
        family = family if family in BUILTIN else "generic"
        known, quantized = self.facts.families, self.facts.quantized_families
        if known is not None and family not in known:
            reasons = WHY_NOT.get(self.name, {})
            return _UNKNOWN if family == "generic" else reasons.get(family, reasons.get(ELSE, _UNKNOWN))
        if self.quantization != NONE and quantized is not None and family not in quantized:
            return f"what quantizes it to {self.quantization} does not know this family; {self.name} without that can be made"
        return None

    def bytes_a_parameter(self, stored_bytes: float) -> float:
        """``stored_bytes``: of a weight of the trained model."""
        if self.quantization == NONE and self.facts.as_stored:
            return stored_bytes
        return self.facts.bytes_a_parameter.get(self.quantization, 4.0)


def scratch_bytes_a_parameter(formats: tuple[str, ...], stored_bytes: float) -> float:
    """Of what lies beside the formats until all are made (the runtime's exports: onnx/mobile.py, mlx.py): the graph that the flat
    file is made from, unless it is an export itself, and the plain model that mlx-lm quantizes."""
    graph = 4.0 if "ort" in formats and "onnx" not in formats else 0.0
    return graph + (stored_bytes if any(f.startswith("mlx:") for f in formats) else 0.0)


def asked(formats: tuple[str, ...], quantization: str) -> tuple[AskedFormat, ...]:
    """``format`` or ``format:quantization``, each once. ``quantization`` is of every format that has it and names none."""
    found = []
    for written in formats:
        name, colon, own = written.partition(":")
        has = quantization in FORMATS.get(name, PLUGIN).quantizations
        found.append(AskedFormat(name=name, quantization=own if colon else quantization if has else NONE))
    return tuple(dict.fromkeys(found))


def needs_tools(formats: tuple[str, ...], quantization: str) -> bool:
    """Whether the bundle must pin what exports are made and checked with."""
    return any(a.facts.tools and (a.facts.plain_tools or a.quantization != NONE) for a in asked(formats, quantization))


@cache
def plugin_formats() -> frozenset[str]:
    """Names that installed plugins bring; nothing of them is imported."""
    return frozenset(p.name for p in entry_points(group=GROUP))
