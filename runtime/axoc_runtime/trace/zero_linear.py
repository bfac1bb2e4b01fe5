"""DeepSpeed's linear layer under ZeRO-3 (runtime/zero/linear.py, LinearFunctionForZeroStage3, which zero.Init puts in the
place of torch's): it saves the parameter itself, so that a gathered weight can be let go of before the backward. torch's
saves a view of it, which would keep it."""

from __future__ import annotations

from typing import Any

import torch


class ZeroLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Any, weight: Any, bias: Any) -> Any:
        ctx.save_for_backward(value, weight, bias)
        if value.dim() == 2 and bias is not None:
            return torch.addmm(bias, value, weight.t())
        result = value.matmul(weight.t())
        if bias is not None:
            result += bias
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        gradient = gradients[0]
        value, weight, bias = ctx.saved_tensors
        of_value = gradient.matmul(weight) if ctx.needs_input_grad[0] else None
        rows = gradient.reshape(-1, gradient.shape[-1])
        of_weight = rows.t().matmul(value.reshape(-1, value.shape[-1])) if ctx.needs_input_grad[1] else None
        of_bias = rows.sum(0) if bias is not None and ctx.needs_input_grad[2] else None
        return of_value, of_weight, of_bias


def zero_linear(value: Any, weight: Any, bias: Any = None) -> Any:
    return ZeroLinear.apply(value, weight, bias)  # type: ignore[no-untyped-call]
