"""Four-bit layers in compiled blocks: bitsandbytes' own functions, of which Dynamo makes a graph with bitsandbytes' own operations in
it; and what those hold on CUDA while they run.

Sources: bitsandbytes 0.50.2, nn/modules.py (Linear4bit.forward), autograd/_functions.py (matmul_4bit, which is called),
backends/cuda/ops.py (_dequant_linear_fallback). Above 1,536 tokens a product is of a weight that was dequantized for it.
"""

from __future__ import annotations

from typing import Any, Final

import torch

from axoc_runtime.trace.launches import note
from axoc_runtime.trace.liveness import Liveness, rounded
from axoc_runtime.trace.quantized import BLOCK, NESTED_BLOCK, Linear4bit, Scales

FP32_BYTES: Final = 4
EIGHT_BIT_SCALES: Final = 7
"""Their place among the arguments of gemm_4bit."""


class CompiledLinear4bit(Linear4bit):
    """With the quantization state that bitsandbytes knows. Its packed weight is a plain parameter, as Params4bit cannot be fake."""

    def __init__(self, layer: torch.nn.Linear, compute: torch.dtype, nested: bool, kind: str) -> None:
        super().__init__(layer, compute, nested)
        self.state = state_of(self.scales, layer.weight, kind)

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        from bitsandbytes import matmul_4bit

        bias = None if self.bias is None else self.bias.to(self.compute)
        lowered = value.to(self.compute)
        result: torch.Tensor = matmul_4bit(lowered, self.weight, quant_state=self.state, bias=bias)
        return result.to(value.dtype)


def state_of(scales: Scales, weight: torch.Tensor, kind: str) -> Any:
    """bitsandbytes' QuantState of a weight's scales."""
    from bitsandbytes.functional import QuantState

    outer: dict[str, Any] = {}
    if scales.nested:
        state2 = QuantState(
            absmax=scales.outer_absmax, code=scales.outer_code, blocksize=NESTED_BLOCK, dtype=torch.float32
        )
        outer = {"offset": scales.offset, "state2": state2}
    return QuantState(
        absmax=scales.absmax,
        shape=weight.shape,
        code=scales.code,
        blocksize=BLOCK,
        quant_type=kind,
        dtype=weight.dtype,
        **outer,
    )


def follow(live: Liveness) -> None:
    """From now on counts what the products hold beside their results."""
    live.rules[torch.ops.bitsandbytes.gemm_4bit.default] = product


def product(mode: Liveness, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """_dequant_linear_fallback: the scales in fp32 twice, where they are scaled themselves, and the weight."""
    value, _, shape = args[:3]
    inner = args[EIGHT_BIT_SCALES] if len(args) > EIGHT_BIT_SCALES else kwargs.get("absmax_8bit")
    sizes = [] if inner is None else [inner.numel() * FP32_BYTES] * 2
    sizes.append(shape[0] * shape[1] * value.element_size())
    note("dequantize", shape, inner is not None)
    held = [(mode.allocate(rounded(size)), rounded(size)) for size in sizes]
    result = mode.rules[torch.ops.aten.mm.default](mode, func, args, kwargs)
    mode.see(result)
    for block, num_bytes in held:
        mode.free(block, num_bytes)
    return result
