"""Host memory of the exports: one process that makes each format, loads it again and compares it with the trained model.

Read from the runtime's exports and from what they call: transformers 5.17, onnxruntime-genai 0.18, onnxruntime 1.32, OpenVINO
2026.4. The trained model is not there beside an exported one: its logits are (exports/run.py, measure.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from axoc.cost.scenario import Scenario
from axoc.units import MIB

TEXT_TOKENS: Final = 1024
"""Kept to measure on, in rows of at most ROW_TOKENS (the runtime's exports/texts.py)."""
ROW_TOKENS: Final = 256
MOST_LOGITS_BYTES: Final = 256 * MIB
"""exports/source.py, LOGIT_BYTES."""
FP32: Final = 4.0
COMPARED: Final = 6.0
"""Copies of a row's logits while its perplexity is taken: float64 ones of the rows, of their differences from the highest, and of
these to the power of e (measure.py, _perplexity)."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What is exported."""

    parameters: float
    stored_bytes: float
    """Of a weight in its files. In fp32 they are mapped, and computed with where they lie."""
    matrix: float
    """Elements of the vocabulary's matrix."""
    linear: float
    """Weights of the matrix products inside the blocks."""
    row: float
    """Bytes of a row's logits."""
    room: float
    """Bytes of the host's memory."""

    @property
    def in_fp32(self) -> float:
        """A copy to compute with, where the files hold another dtype and the host has room for one; else they are mapped
        (reference.py, _dtype)."""
        needed = FP32 * self.parameters
        return 0.0 if self.stored_bytes == FP32 or needed >= self.room else needed

    @property
    def read_back_in_fp32(self) -> float:
        """The same of a folder in 16 bits."""
        needed = FP32 * self.parameters
        return needed if needed < self.room else 0.0

    @property
    def program(self) -> float:
        """torch's exported one, in fp32 whatever room there is."""
        return 0.0 if self.stored_bytes == FP32 else FP32 * self.parameters

    def beside(self, a_weight: float) -> float:
        """Linear layers at so many bytes, all else in fp32."""
        return a_weight * self.linear + FP32 * (self.parameters - self.linear)


Holds = Callable[[Trained], float]
"""Bytes that a format's maker or its reader holds at the most."""


def _packed(method: str) -> Holds:
    a_weight = 1.0 if method == "llm_int8" else 0.5 + 1 / 64 + 4 / (64 * 256)
    return lambda m: m.beside(a_weight)


def _compressed(m: Trained) -> float:
    """llm-compressor changes the weights where they are: no page stays its file's. What is saved is packed beside them."""
    return 2 * 2.0 * m.parameters


HOLDS: Final[Mapping[str, Holds]] = {
    "safetensors": lambda m: m.in_fp32,  # both are mapped where they are stored in fp32
    **{f"safetensors:{q}": _packed(q) for q in ("nf4", "fp4", "llm_int8")},
    "pytorch": lambda m: FP32 * m.parameters,  # a fresh model, into which the file is read
    "vllm": lambda m: max(m.read_back_in_fp32, 0.0 if m.stored_bytes == 2.0 else 2.0 * m.parameters),
    **{f"vllm:{q}": _compressed for q in ("fp8", "int8", "gptq", "awq")},
    # matrices as onnxruntime packs them to multiply, and its arena, which is taken to double for a row's logits
    "onnx": lambda m: FP32 * m.parameters + 2.0 * m.row,
    "gguf": lambda m: (
        (4 + 4 + 2) * m.matrix
    ),  # a tensor at a time: its values, their sizes, its halves; then llama.cpp maps it
}
PROGRAM: Final = ("openvino", "tensorrt")
"""Formats that are made from torch's exported program, which is kept for the others until the end (onnx/graph.py, program)."""
GRAPH: Final = 2 * FP32
"""A parameter, of any other format that is a graph: the constants as they are converted, and those that its runtime packs to compute."""


def exporting_bytes(scenario: Scenario) -> float:
    """Beside the process itself. Nothing where no format is asked for."""
    if not scenario.exports:
        return 0.0
    trained = trained_of(scenario)
    row = trained.row
    logits = min(row * TEXT_TOKENS / ROW_TOKENS, float(MOST_LOGITS_BYTES))
    kept, most = 0.0, trained.in_fp32
    for name, _ in scenario.exports:
        kept += trained.program if name.partition(":")[0] in PROGRAM and not kept else 0.0
        most = max(most, kept + holds(name, trained) + logits)
    return most + logits + COMPARED * min(row, logits)


def holds(name: str, trained: Trained) -> float:
    """A quantization that has no term of its own holds what its format does; a plugin's format a copy in fp32."""
    found = HOLDS.get(name) or HOLDS.get(name.partition(":")[0])
    if found is not None:
        return found(trained)
    graph = name.partition(":")[0] in ("onnx", "ort", "openvino", "tensorrt")
    return (GRAPH if graph else FP32) * trained.parameters


def trained_of(scenario: Scenario) -> Trained:
    sizes = scenario.sizes
    return Trained(
        parameters=float(sizes.total),
        stored_bytes=float(scenario.weight_bytes),
        matrix=float(sizes.vocabulary_matrix),
        linear=float(sizes.blocks_linear),
        row=FP32 * ROW_TOKENS * scenario.model.vocab_size,
        room=float(scenario.cluster.host_memory_bytes),
    )
