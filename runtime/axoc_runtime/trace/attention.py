"""Fused attention as CUDA runs it: which kernel, what it saves for the backward, what it holds while it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch

from axoc_runtime.trace.device import Device
from axoc_runtime.trace.liveness import Liveness, Rule

aten = torch.ops.aten
FLASH_HEAD: Final = 256
"""Largest head size (sdp_utils.cpp, check_head_dim_size_flash)."""
TILE: Final = 128
"""Flash rounds sequence lengths up to it (flash_api.cpp, seqlen_q_rounded)."""


def fused_attention(device: Device, plain: Callable[..., Any]) -> Callable[..., Any]:
    """A stand-in for F.scaled_dot_product_attention: CUDA's choice of kernel, in CUDA's order of preference."""

    def attend(
        query: Any,
        key: Any,
        value: Any,
        attn_mask: Any = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Any:
        if torch.is_autocast_enabled("cpu"):  # lowered; arguments are evaluated from the right
            value, key, query = (t.to(torch.get_autocast_dtype("cpu")) for t in (value, key, query))
        head, half = query.shape[-1], query.dtype in (torch.float16, torch.bfloat16)
        fits = half and value.shape[-1] == head and head % 8 == 0
        if fits and device.prefers_cudnn_attention and head <= device.cudnn_head:
            bias = additive(attn_mask, query)
            call = aten._scaled_dot_product_cudnn_attention
            return call(query, key, value, bias, True, dropout_p, is_causal, False, scale=scale)[0]
        if fits and attn_mask is None and head <= FLASH_HEAD:
            call = aten._scaled_dot_product_flash_attention
            return call(query, key, value, dropout_p, is_causal, False, scale=scale)[0]
        if half and head % 8 == 0 and value.shape[-1] % 8 == 0:
            bias = additive(attn_mask, query)
            bias = None if bias is None else bias.expand(query.shape[0], query.shape[1], *bias.shape[-2:])
            call = aten._scaled_dot_product_efficient_attention
            return call(query, key, value, bias, True, dropout_p, is_causal, scale=scale)[0]
        return plain(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)

    return attend


def additive(mask: Any, query: Any) -> Any:
    """attention.cpp, convert_boolean_attn_mask: a boolean mask becomes one of the query's dtype."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=query.dtype).masked_fill_(mask.logical_not(), float("-inf"))


def flash_backward(mode: Liveness, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """flash_api.cpp, mha_bwd: fp32 accumulators of dq, row sums, and dk, dv of each query head where heads share."""
    result = func(*args, **kwargs)
    for tensor in result:
        mode.see(tensor)
    mode.scratch(accumulators(args[1]) + expanded_bytes(args[1], args[2]))
    return result


def cudnn_backward(mode: Liveness, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """cudnn/MHA.cpp allocates the workspace that cuDNN's plan asks for. Read off an H100's allocations, nine shapes, to
    the byte: dq and the row sums of dO x O in fp32, dk and dv of each query head where heads share, 256 bytes."""
    result = func(*args, **kwargs)
    for tensor in result:
        if isinstance(tensor, torch.Tensor):
            mode.see(tensor)
    query, key = args[1], args[2]
    batch, heads, length, head = query.shape
    mode.scratch(batch * heads * length * (head + 1) * 4 + expanded_bytes(query, key) + 256)
    return result


def expanded_bytes(query: Any, key: Any) -> int:
    """dk and dv with a head for each of the query's, where it has more of them; else none."""
    shared = query.shape[1] != key.shape[1]
    return 2 * key.shape[0] * query.shape[1] * key.shape[2] * key.shape[3] * key.element_size() if shared else 0


def accumulators(query: Any) -> int:
    """Bytes of dq and of the row sums in fp32, sequence lengths rounded to tiles."""
    batch, heads, length, head = query.shape
    return int(batch * heads * -(-length // TILE) * TILE * (head + 1) * 4)


RULES: Final[dict[Any, Rule]] = {
    aten._scaled_dot_product_flash_attention_backward.default: flash_backward,
    aten._scaled_dot_product_cudnn_attention_backward.default: cudnn_backward,
}
