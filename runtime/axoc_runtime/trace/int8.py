"""Eight-bit weights as bitsandbytes uses them (LLM.int8), by layers that allocate alike.

Sources: bitsandbytes 0.50.2 autograd/_functions.py (MatMul8bitLt), backends/cuda/ops.py (int8_vectorwise_quant,
int8_linear_matmul, int8_mm_dequant), backends/default/ops.py (int8_mixed_scaled_mm). Values above the threshold are a
matter of data: none are assumed.
"""

from __future__ import annotations

from typing import Any

import torch

THRESHOLD = 6.0
"""llm_int8_threshold of BitsAndBytesConfig."""


class Product(torch.autograd.Function):
    """Quantizes its input by rows. Keeps that input by itself, not as a saved tensor, so that checkpointing does not
    let go of it (ctx.tensors)."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, layer: Linear8bit, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.layer, ctx.value = layer, value
        rows = value.reshape(-1, value.shape[-1])
        quantized, scales = by_rows(rows.to(torch.float16))
        sums = torch.empty((rows.shape[0], layer.out_features), dtype=torch.int32)
        half = torch.empty_like(sums, dtype=torch.float16)
        if bias is not None and bias.dtype != torch.float16:
            half.add_(bias)
        result = half.to(value.dtype)
        del quantized, scales, sums, half
        return result.view(*value.shape[:-1], layer.out_features)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        layer, dtype = ctx.layer, ctx.value.dtype
        gradient = gradients[0].reshape(-1, gradients[0].shape[-1]).contiguous()
        weight = layer.weight.detach().to(dtype, copy=True).mul_(layer.scales.unsqueeze(1).mul(1.0 / 127.0))
        return torch.matmul(gradient.to(dtype), weight).view(ctx.value.shape), None, None


def by_rows(half: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """int8_vectorwise_quant: the numbers, a scale a row; a mask of what is too large while it runs."""
    scales = torch.empty(half.shape[0])
    numbers = torch.empty_like(half, dtype=torch.int8)
    outliers = half.abs() >= THRESHOLD
    del outliers
    return numbers, scales


class Linear8bit(torch.nn.Linear):
    """A linear layer of one byte a weight, and a scale a row."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        torch.nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight = torch.nn.Parameter(torch.empty(layer.weight.shape, dtype=torch.int8), requires_grad=False)
        self.scales = torch.zeros(layer.out_features)
        self.bias = layer.bias

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        return Product.apply(value, self, self.bias)  # type: ignore[no-untyped-call, no-any-return]


def adapted_forward(layer: Any, value: torch.Tensor) -> torch.Tensor:
    """peft/tuners/lora/bnb.py, Linear8bitLt.forward"""
    result: torch.Tensor = layer.base_layer(value)
    for name in layer.active_adapters:
        lowered = torch.is_autocast_enabled("cpu")
        value = value if lowered else value.to(layer.lora_A[name].weight.dtype)
        added = layer.lora_B[name](layer.lora_A[name](layer.lora_dropout[name](value))) * layer.scaling[name]
        result = result + (added if lowered else added.to(result.dtype))
    return result
