"""Flash attention 4's kernels over documents of unequal length, as one operation that torch.compile takes whole.

The package's own function is an autograd.Function that Dynamo cannot look into, and torch 2.11's adapter
(torch/nn/attention/_fa4.py) takes two results where this version gives five; so its forward and backward are named here, of the
version that the lock pins. They are built when they are first called, in some seconds, without a compiler.
"""

from typing import Any

import torch

Gradients = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@torch.library.custom_op("axoc::flash_4", mutates_args=())
def flash_4(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    boundaries: torch.Tensor,
    longest: int,
    scale: float | None,
    window: int | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Causal attention within documents. ``query`` [tokens, heads, size]; ``boundaries`` [documents + 1], int32; ``window``:
    tokens that a query sees, itself included. Returns the output and, in float32, [heads, tokens] log-sum-exps."""
    from flash_attn.cute.interface import _flash_attn_fwd

    out, sums, *_ = _flash_attn_fwd(
        query,
        key,
        value,
        cu_seqlens_q=boundaries,
        cu_seqlens_k=boundaries,
        max_seqlen_q=longest,
        max_seqlen_k=longest,
        softmax_scale=scale,
        causal=True,
        window_size_left=None if window is None else window - 1,
        return_lse=True,
    )
    return out, sums


@flash_4.register_fake
def _(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    boundaries: torch.Tensor,
    longest: int,
    scale: float | None,
    window: int | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    sums = query.new_empty((query.shape[1], query.shape[0]), dtype=torch.float32)
    return query.new_empty((*query.shape[:2], value.shape[2])), sums


@torch.library.custom_op("axoc::flash_4_backward", mutates_args=())
def flash_4_backward(
    gradient: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    sums: torch.Tensor,
    boundaries: torch.Tensor,
    longest: int,
    scale: float | None,
    window: int | None,
) -> Gradients:
    """Of query, key and value, shaped as they are."""
    from flash_attn.cute.interface import _flash_attn_bwd

    dq, dk, dv, *_ = _flash_attn_bwd(
        query,
        key,
        value,
        out,
        gradient,
        sums,
        softmax_scale=scale,
        causal=True,
        window_size_left=None if window is None else window - 1,
        cu_seqlens_q=boundaries,
        cu_seqlens_k=boundaries,
        max_seqlen_q=longest,
        max_seqlen_k=longest,
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )
    return dq, dk, dv


@flash_4_backward.register_fake
def _(
    gradient: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    sums: torch.Tensor,
    boundaries: torch.Tensor,
    longest: int,
    scale: float | None,
    window: int | None,
) -> Gradients:
    return query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    query, key, value, boundaries, ctx.longest, ctx.scale, ctx.window = inputs
    ctx.save_for_backward(query, key, value, *output, boundaries)


def _differentiate(ctx: Any, gradient: torch.Tensor, _: torch.Tensor) -> tuple[Any, ...]:
    query, key, value, out, sums, boundaries = ctx.saved_tensors
    rest = (boundaries, ctx.longest, ctx.scale, ctx.window)
    return (*flash_4_backward(gradient, query, key, value, out, sums, *rest), None, None, None, None)


flash_4.register_autograd(_differentiate, setup_context=_keep)


def kernel(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    boundaries: torch.Tensor,
    longest: int,
    scale: float | None,
    window: int | None,
) -> torch.Tensor:
    """As varlen's: the output alone."""
    out: torch.Tensor = flash_4(query, key, value, boundaries, longest, scale, window)[0]
    return out
