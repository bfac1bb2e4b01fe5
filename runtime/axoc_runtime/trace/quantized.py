"""Four-bit weights as bitsandbytes keeps and uses them: Params4bit cannot be fake, so layers that allocate alike stand in.

Sources: bitsandbytes 0.50 functional.py (quantize_4bit), autograd/_functions.py (MatMul4Bit), nn/modules.py
(Linear4bit.forward), backends/cuda/ops.py (_dequant_linear_fallback); peft/tuners/lora/bnb.py, peft/utils/other.py.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any, Final

import torch
from torch.nn import functional

from axoc_runtime.errors import EXIT_INPUTS, RuntimeFailure
from axoc_runtime.job import Quantization
from axoc_runtime.trace import int8
from axoc_runtime.trace.int8 import Linear8bit
from axoc_runtime.trace.launches import as_one, note

BLOCK: Final = 64
"""Weights that share one scale."""
NESTED_BLOCK: Final = 256
"""Scales that share one scale of their own, with double quantization."""
CODE: Final = 16
NESTED_CODE: Final = 256
"""Entries of the code books, in fp32: one of each for every weight."""
FOUR_BIT: Final = ("nf4", "fp4")


class Scales:
    """A weight's quantization state."""

    def __init__(self, numbers: int, nested: bool) -> None:
        blocks = -(-numbers // BLOCK)
        self.nested = nested
        self.code = torch.zeros(CODE)
        self.absmax = torch.zeros(blocks, dtype=torch.uint8 if nested else torch.float32)
        if nested:
            self.outer_absmax = torch.zeros(-(-blocks // NESTED_BLOCK))
            self.outer_code = torch.zeros(NESTED_CODE)
            self.offset = torch.zeros(())

    def whole(self) -> tuple[torch.Tensor, ...]:
        """The scales in fp32, and what they were made from: with double quantization they come first."""
        if not self.nested:
            return (self.absmax,)
        raw = torch.empty_like(self.absmax, dtype=torch.float32)
        return raw + self.offset, raw


class Product(torch.autograd.Function):
    """Saves nothing but the packed weight; dequantizes it in the forward and again in the backward."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, layer: Linear4bit, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.layer = layer
        with as_one("dequantize", layer.shape, layer.scales.nested):
            scales = layer.scales.whole()
            weight = torch.empty(layer.shape, dtype=value.dtype)
        result = functional.linear(value, weight, bias)
        del scales, weight
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        weight = dequantized(ctx.layer)
        return torch.matmul(gradients[0], weight.to(gradients[0].dtype)), None, None


def dequantized(layer: Linear4bit) -> torch.Tensor:
    """functional.dequantize_4bit: the scales' offset is added in place."""
    note("dequantize", layer.shape, layer.scales.nested)
    scales = torch.empty_like(layer.scales.absmax, dtype=torch.float32) if layer.scales.nested else None
    weight = torch.empty(layer.shape, dtype=layer.compute)
    del scales
    return weight


class Linear4bit(torch.nn.Linear):
    """A linear layer whose weight is packed, two numbers a byte."""

    def __init__(self, layer: torch.nn.Linear, compute: torch.dtype, nested: bool) -> None:
        torch.nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.shape, self.compute = layer.weight.shape, compute
        numbers = layer.weight.numel()
        packed = torch.empty((-(-numbers // 2), 1), dtype=torch.uint8)
        self.weight = torch.nn.Parameter(packed, requires_grad=False)
        self.scales = Scales(numbers, nested)
        self.bias = layer.bias

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        bias = None if self.bias is None else self.bias.to(self.compute)
        lowered = value.to(self.compute)  # lives until the result is back in the input's dtype
        result: torch.Tensor = Product.apply(lowered, self, bias)  # type: ignore[no-untyped-call]
        return result.to(value.dtype)


def quantize(model: Any, quantization: Quantization, compute: torch.dtype, *, compiled: bool = False) -> None:
    """Replaces the linear layers of the blocks; the head stays as it is."""
    layers: dict[str, Callable[[torch.nn.Linear], torch.nn.Module]] = {
        **dict.fromkeys(FOUR_BIT, lambda layer: four_bit(layer, quantization, compute, compiled)),
        "int8": Linear8bit,
    }
    if quantization.method not in layers:
        fix = f"trace with model.quantization {', '.join(layers)}, or without"
        raise RuntimeFailure(f"the memory of {quantization.method} cannot be traced yet", EXIT_INPUTS, fix)
    make, head = layers[quantization.method], model.get_output_embeddings()
    for name, layer in list(model.named_modules()):
        if type(layer) is torch.nn.Linear and layer is not head:
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, make(layer))


def four_bit(layer: torch.nn.Linear, quantization: Quantization, compute: torch.dtype, compiled: bool) -> Linear4bit:
    if not compiled:
        return Linear4bit(layer, compute, quantization.double_quantization)
    from axoc_runtime.trace.four_bit import CompiledLinear4bit  # which needs bitsandbytes

    return CompiledLinear4bit(layer, compute, quantization.double_quantization, quantization.method)


def raise_the_rest(model: Any) -> None:
    """PEFT's prepare_model_for_kbit_training: nothing is trained, and all that is not packed goes to fp32."""
    for parameter in model.parameters():
        parameter.requires_grad = False
    for parameter in model.parameters():
        if parameter.dtype in (torch.bfloat16, torch.float16):
            parameter.data = parameter.data.to(torch.float32)


def adapt(model: Any) -> None:
    """PEFT's own forwards for quantized layers."""
    forwards = {Linear4bit: adapted_forward, Linear8bit: int8.adapted_forward}
    for module in model.modules():
        base = getattr(module, "base_layer", None)
        if (forward := next((f for kind, f in forwards.items() if isinstance(base, kind)), None)) is not None:
            module.forward = MethodType(forward, module)


def adapted_forward(layer: Any, value: torch.Tensor) -> torch.Tensor:
    """Of four bits: the layer's result is copied before the adapter's is added to it, which keeps its dtype under autocast:
    the sum is of both dtypes, in one kernel."""
    result: torch.Tensor = layer.base_layer(value)
    result = result.clone()
    converts = not torch.is_autocast_enabled("cpu")
    for name in layer.active_adapters:
        if converts:
            value = value.to(layer.lora_A[name].weight.dtype)
        added = layer.lora_B[name](layer.lora_A[name](layer.lora_dropout[name](value))) * layer.scaling[name]
        if converts:
            added = added.to(result.dtype)
        result = result + added
    return result
