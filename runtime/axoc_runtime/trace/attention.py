"""Attention as CUDA runs it: which kernel, what it saves for the backward, what it holds while it runs.

Source: torch 2.11, ATen/native/transformers: cuda/sdp_utils.cpp, sdp_utils_cpp.h (which), attention.cpp (what).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import torch
from torch.nn import functional

from axoc_runtime.trace.device import Device
from axoc_runtime.trace.launches import as_one
from axoc_runtime.trace.liveness import Liveness, Rule, rounded

aten = torch.ops.aten
FLASH_HEAD: Final = 256
"""Largest head size (sdp_utils.cpp, check_head_dim_size_flash)."""
FP32: Final = 4
TILE: Final = 128
"""Flash rounds sequence lengths up to it (flash_api.cpp, seqlen_q_rounded)."""


class Call(NamedTuple):
    """Arguments of F.scaled_dot_product_attention."""

    query: Any
    key: Any
    value: Any
    mask: Any
    dropout: float
    causal: bool
    scale: float | None
    shares: bool
    """enable_gqa: a key head may serve several query heads."""


def attention(device: Device) -> Callable[..., Any]:
    """A stand-in for F.scaled_dot_product_attention: CUDA's choice of kernel, in CUDA's order of preference
    (sdp_utils.cpp, select_sdp_backend)."""

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
        call = Call(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)
        with torch.autocast("cpu", enabled=False):  # what it is made of is left alone (ATen/autocast_mode.h)
            return kernel(device, call)(call)

    return attend


def kernel(device: Device, c: Call) -> Callable[[Call], Any]:
    """The first that takes such tensors. Where there are fewer key heads and the caller does not say that they are shared,
    as Falcon, no fused kernel does (sdp_utils_cpp.h, check_batch_size_and_num_heads_dense)."""
    head, half = c.query.shape[-1], c.query.dtype in (torch.float16, torch.bfloat16)
    heads, key_heads, value_heads = (t.shape[1] for t in (c.query, c.key, c.value))
    alike = heads == key_heads == value_heads
    grouped = alike or (c.shares and key_heads == value_heads and heads % key_heads == 0)
    fits = half and grouped and c.key.shape[-1] == c.value.shape[-1] == head
    if fits and device.prefers_cudnn_attention and head % 8 == 0 and head <= device.cudnn_head:
        return cudnn
    if fits and c.mask is None and head <= FLASH_HEAD:
        return flash
    aligned = 8 if half else 4  # elements: 16 bytes (sdp_utils.cpp, minimum_gemm_alignment)
    if alike and head % aligned == 0 and c.value.shape[-1] % aligned == 0:
        return efficient
    return math


def cudnn(c: Call) -> Any:
    bias = converted(c)
    call = aten._scaled_dot_product_cudnn_attention
    return call(c.query, c.key, c.value, bias, True, c.dropout, c.causal, False, scale=c.scale)[0]


def flash(c: Call) -> Any:
    """Heads are padded to a multiple of 8 (attention.cpp, pad_last_dim)."""
    head = c.query.shape[-1]
    query, key, value = (functional.pad(t, (0, -head % 8)) if head % 8 else t for t in (c.query, c.key, c.value))
    call = aten._scaled_dot_product_flash_attention
    result = call(query, key, value, c.dropout, c.causal, False, scale=c.scale)[0]
    return result[..., :head] if head % 8 else result


def efficient(c: Call) -> Any:
    bias = converted(c)
    bias = None if bias is None else bias.expand(*c.query.shape[:2], *bias.shape[-2:])
    call = aten._scaled_dot_product_efficient_attention
    return call(c.query, c.key, c.value, bias, True, c.dropout, c.causal, scale=c.scale)[0]


def math(c: Call) -> Any:
    """attention.cpp, _scaled_dot_product_attention_math, line by line: scores in full and, but for fp64, in fp32. torch's
    own would not add the mask in place here, where tensors are of a subclass."""
    bias = additive(c.mask, c.query)
    query, key, value = (t.float() if t.element_size() < FP32 else t for t in (c.query, c.key, c.value))
    factor = (query.shape[-1] ** -0.5 if c.scale is None else c.scale) ** 0.5
    scaled = query * factor
    if c.causal:
        bias = additive(lower_triangle(query, key), query)
    keys, values = (repeated(t, c) for t in (key, value))
    scores = scaled @ (keys.transpose(-2, -1) * factor)
    if bias is not None:
        scores.add_(bias)
    scores = aten._safe_softmax(scores, -1)
    if c.dropout > 0:
        scores = torch.native_dropout(scores, c.dropout, True)[0]
    second = scores.to(c.query.dtype)  # a result nobody asks for, made first: arguments are evaluated from the right
    result = (scores @ values).to(c.query.dtype)
    del second
    return result


def lower_triangle(query: Any, key: Any) -> Any:
    return torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()


def repeated(value: Any, c: Call) -> Any:
    """pre_process_group_query_attention_input: keys and values for each query head, where they are said to be shared."""
    times = c.query.shape[1] // value.shape[1]
    return value.repeat_interleave(times, -3) if c.shares and times > 1 else value


def additive(mask: Any, query: Any) -> Any:
    """attention.cpp, convert_boolean_attn_mask: a boolean mask becomes one of the query's dtype."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=query.dtype).masked_fill_(mask.logical_not(), float("-inf"))


def converted(c: Call) -> Any:
    """The mask that a fused kernel is given. Where it is made of a boolean one, that is part of what the kernel was measured to take."""
    if c.mask is None or c.mask.dtype != torch.bool:
        return c.mask
    with as_one("attention.mask"):
        return additive(c.mask, c.query)


def safe_softmax(mode: Liveness, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """attention.cpp, _safe_softmax: beside the softmax a byte a score and one a row that say where all is masked. What is returned is
    written over the softmax (where_out), and not beside it: what k01 and p14 reserved, to the page."""
    scores = args[0]
    result = mode.run(func, args, kwargs)
    mode.see(result)
    blocks = [
        (mode.allocate(size), size) for size in map(rounded, (scores.numel(), scores.numel() // scores.shape[-1]))
    ]
    for block, size in reversed(blocks):
        mode.free(block, size)
    return result


def softmax_backward(mode: Liveness, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """ATen/native/cuda/SoftMax.cu, softmax_backward_cuda_out: the gradient times the output is a tensor of its own."""
    result = mode.run(func, args, kwargs)
    mode.see(result)
    mode.scratch(args[0].nbytes)
    return result


def flash_backward(mode: Liveness, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """flash_api.cpp, mha_bwd: fp32 accumulators of dq, row sums, and dk, dv of each query head where heads share."""
    result = mode.run(func, args, kwargs)
    for tensor in result:
        mode.see(tensor)
    mode.scratch(accumulators(args[1]) + expanded_bytes(args[1], args[2]))
    return result


def cudnn_backward(mode: Liveness, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """cudnn/MHA.cpp allocates the workspace that cuDNN's plan asks for. Read off an H100's allocations, nine shapes, to
    the byte: dq and the row sums of dO x O in fp32, dk and dv of each query head where heads share, 256 bytes."""
    result = mode.run(func, args, kwargs)
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
    aten._safe_softmax.default: safe_softmax,
    aten._softmax_backward_data.default: softmax_backward,
    aten._scaled_dot_product_flash_attention_backward.default: flash_backward,
    aten._scaled_dot_product_cudnn_attention_backward.default: cudnn_backward,
}
