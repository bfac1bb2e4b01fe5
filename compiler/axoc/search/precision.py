"""How precisely weights and optimizer states are kept, where the request leaves it open: each is a pass of its own."""

from __future__ import annotations

from itertools import product

from axoc.ir.request import AUTO, PlanRequest, QuantizationRequest

Precision = tuple[str, str]
"""Quantization of the weights, and optimizer."""


def precisions(request: PlanRequest) -> list[Precision]:
    return list(product(quantizations(request), optimizers(request)))


def quantizations(request: PlanRequest) -> tuple[str, ...]:
    """``auto`` prefers exact weights and falls back to nf4 where an adapter makes that possible."""
    wanted = request.model.quantization
    if wanted is None:
        return ("none",)
    if isinstance(wanted, QuantizationRequest):
        return (wanted.method,)
    return ("none", "nf4") if request.adapter is not None else ("none",)


def optimizers(request: PlanRequest) -> tuple[str, ...]:
    """``auto`` is AdamW with states of 32 or 8 bits."""
    wanted = request.training.optimizer
    return ("adamw_torch_fused", "adamw_bnb_8bit") if wanted == AUTO else (wanted,)
