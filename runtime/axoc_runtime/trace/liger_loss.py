"""Liger's fused head and loss: logits of a few rows at a time, gradients already in the forward.

Source: liger_kernel 0.8.5 ops/fused_linear_cross_entropy.py, on CUDA from capability 8 and torch 2.8 on.
"""

from __future__ import annotations

from typing import Any

import torch

from axoc_runtime.trace.launches import as_one, note


def fused_loss(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Of rows of hidden states, under whatever autocast is on."""
    return FusedLoss.apply(hidden, weight, labels)  # type: ignore[no-untyped-call, no-any-return]


class FusedLoss(torch.autograd.Function):
    """Saves the gradients of hidden states and weight; the backward scales them in place."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        gradient = torch.zeros_like(hidden)  # made even where nothing is trained
        of_weight = torch.zeros_like(weight) if weight.requires_grad and hidden.requires_grad else None
        losses = torch.zeros(hidden.shape[0], dtype=torch.float32)
        rows = chunk_rows(hidden.shape[0], hidden.shape[1], weight.shape[0])
        shared = torch.empty((rows, weight.shape[0]), dtype=hidden.dtype) if writes_out(hidden, weight) else None
        with as_one("liger.loss", hidden, weight, of_weight is not None, lowers(hidden, weight)):
            for start in range(0, hidden.shape[0], rows):
                one_chunk(hidden[start : start + rows], weight, gradient[start : start + rows], of_weight, shared)
        del shared
        ctx.save_for_backward(gradient, of_weight)
        return losses.sum()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        for gradient in ctx.saved_tensors:
            if gradient is not None:
                note("liger.scaled", gradient)
        return (*ctx.saved_tensors, None)


def one_chunk(
    hidden: torch.Tensor, weight: torch.Tensor, gradient: torch.Tensor, of_weight: Any, shared: torch.Tensor | None
) -> None:
    """Logits, which become their own gradient in place, then both products. out= passes autocast by."""
    if shared is None:
        logits = hidden @ weight.t()
        gradient.copy_(logits @ weight)
    else:
        logits = shared[: hidden.shape[0]]
        torch.mm(hidden, weight.t(), out=logits)
        torch.mm(logits, weight, out=gradient)
    if of_weight is not None:
        rows = hidden.to(logits.dtype)
        of_weight.add_(torch.empty((), dtype=of_weight.dtype))  # addmm(out=grad_weight): nothing but a cast of the rows
        del rows


def chunk_rows(tokens: int, hidden: int, vocabulary: int) -> int:
    """Rows at a time, so that their logits are about as large as all hidden states: a power of two."""
    wanted = -(-tokens // -(-vocabulary // hidden))
    return min(1 << (wanted - 1).bit_length(), tokens)


def lowers(hidden: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether autocast lowers the weight, for each chunk."""
    return torch.is_autocast_enabled("cpu") and weight.dtype != torch.get_autocast_dtype("cpu")


def writes_out(hidden: torch.Tensor, weight: torch.Tensor) -> bool:
    """_can_use_mm_out: one dtype, and the one that autocast would lower to."""
    if hidden.dtype != weight.dtype or torch.is_grad_enabled():
        return False
    return not torch.is_autocast_enabled("cpu") or hidden.dtype == torch.get_autocast_dtype("cpu")
