"""Which type each matrix gets in a quantized GGUF, and the packing, by ggml's own kernels.

llama.cpp's mixtures spend more bits where it was seen to matter (its tools/quantize, "k-quants"): the head, and values and
down projections in the first and last eighth of the layers and every third one between. Its quantizer is not in the Python
build; its kernels are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from axoc_runtime.exports.gguf.layout import Array
from axoc_runtime.exports.gguf.llama_cpp import quantize_rows

FILE_TYPES: Final[Mapping[str, int]] = {
    "f16": 1, "bf16": 32, "q8_0": 7, "q6_k": 18, "q5_k_m": 17, "q5_k_s": 16, "q4_k_m": 15, "q4_k_s": 14, "q4_0": 2,
    "q3_k_m": 12, "q2_k": 10,
}  # fmt: skip
"""llama_ftype of include/llama.h: what a file says it is."""
MOST: Final[Mapping[str, str]] = {
    "f16": "F16", "bf16": "BF16", "q8_0": "Q8_0", "q6_k": "Q6_K", "q5_k_m": "Q5_K", "q5_k_s": "Q5_K",
    "q4_k_m": "Q4_K", "q4_k_s": "Q4_K", "q4_0": "Q4_0", "q3_k_m": "Q3_K", "q2_k": "Q2_K",
}  # fmt: skip
"""Of most matrices."""
FINER: Final[Mapping[str, str]] = {"q5_k_m": "Q6_K", "q4_k_m": "Q6_K", "q3_k_m": "Q5_K", "q2_k": "Q4_K"}
"""Of values and down projections in the layers that matter most."""
NARROW: Final[Mapping[str, str]] = {"Q6_K": "Q8_0", "Q5_K": "Q5_1", "Q4_K": "Q5_0", "Q3_K": "Q4_0", "Q2_K": "Q4_0"}
"""In the place of a k-quant, whose blocks are of 256, where a row is no multiple of that."""
BLOCK: Final = 256


def mixed(variant: str, name: str, config: Any, columns: int) -> Any:
    """The gguf package's GGMLQuantizationType for the matrix that llama.cpp calls ``name``."""
    import gguf

    chosen = _wanted(variant, name, int(config.num_hidden_layers))
    if chosen in NARROW and columns % BLOCK:
        chosen = NARROW[chosen]
    if chosen not in ("F32", "F16", "BF16") and columns % 32:
        chosen = "F16"  # no quantized type has rows of this length
    return gguf.GGMLQuantizationType[chosen]


def _wanted(variant: str, name: str, layers: int) -> str:
    if name.endswith("ffn_gate_inp.weight"):
        return "F32"  # which experts a token goes to is not for rounding to decide
    if name in ("output.weight", "token_embd.weight") and variant not in ("f16", "bf16", "q8_0"):
        return "Q6_K"  # an embedding that is also the head must be as fine as a head
    layer = re.match(r"blk\.(\d+)\.(attn_v|ffn_down)(_exps)?\.", name)
    if layer is not None and variant in FINER and matters(int(layer[1]), layers):
        return FINER[variant]
    return MOST[variant]


def matters(layer: int, layers: int) -> bool:
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def packed(values: Array, kind: Any) -> Array:
    """The matrix (or the matrices of a layer's experts) as ``kind`` stores it: 16-bit floats by the gguf package, the rest by
    ggml."""
    import gguf

    types = gguf.GGMLQuantizationType
    if kind == types.F32:
        return values.astype(np.float32)
    if kind == types.F16:
        return values.astype(np.float16)
    if kind == types.BF16:
        made: Array = gguf.quants.quantize(values, kind)
        return made
    block, size = gguf.GGML_QUANT_SIZES[kind]
    columns = values.shape[-1]
    rows = quantize_rows(values.reshape(-1, columns).astype(np.float32), int(kind), columns // block * size)
    return rows.reshape(*values.shape[:-1], -1)
