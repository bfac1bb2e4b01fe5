"""SDPA where no fused kernel takes its tensors: scores in full and in fp32.

Source: torch 2.11, ATen/native/transformers: sdp_utils_cpp.h (check_batch_size_and_num_heads_dense), cuda/sdp_utils.cpp,
attention.cpp (_scaled_dot_product_attention_math, _safe_softmax). Autocast lowers its inputs, and nothing inside.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from axoc.cost.layers import FP32, Setting
from axoc.cost.tape import Size, Storage, Tape, Value
from axoc.ir.facts import ModelFacts

LARGEST_SHARED_HEAD: Final = 256
"""Up to it transformers' SDPA shares keys and values among queries where there is no mask (use_gqa_in_sdpa)."""
WITHIN: Final = "within"
"""Kind of its operations but one, "unfused", which has the time of them all."""


def is_unfused(s: Setting, bytes_: float, *, masked: bool) -> bool:
    """``bytes_``: of an element of the query. The one fused kernel that takes fp32 takes no shared heads (a CPU's does)."""
    if s.scenario.attention != "sdpa":
        return False
    return broadcasts(s.scenario.model) or (
        bytes_ == FP32 and shares(s.scenario.model) and not masked and not s.scenario.on_cpu
    )


def broadcasts(model: ModelFacts) -> bool:
    """Falcon hands SDPA one key head for all queries and does not say so (enable_gqa): fused kernels want as many of both."""
    return model.family == "falcon" and model.num_kv_heads == 1


def shares(model: ModelFacts) -> bool:
    """transformers says so (enable_gqa) where there is no mask. Falcon's new architecture has repeated them by then."""
    fewer = model.mla is None and model.family != "falcon" and model.num_kv_heads != model.num_heads
    return fewer and model.head_dim <= LARGEST_SHARED_HEAD


def unfused(t: Tape, s: Setting, parts: list[Value], width: Size, heads: Size, *, masked: bool) -> Value:
    """Consumes ``parts``. All its local variables live until it returns; its result lies head by head."""
    low, seq = parts[0].bytes, float(s.scenario.seq_length)
    bias = t.allocate(seq * low * t.tokens if masked else seq * seq * FP32 + 0.0 * t.tokens)
    raised = [_made(t, part.width, FP32, part) if part.bytes < FP32 else t.again(part) for part in parts]
    query, *rest = _scaled_query(t, s, raised[0])
    keys, values = (t.again(v) if broadcasts(s.scenario.model) else _made(t, width, FP32, v) for v in raised[1:])
    scaled = _made(t, keys.width, FP32, keys)
    met = _spread(t, seq, scaled, width)
    t.drop(scaled)
    sizes = (heads, s.scenario.model.head_dim, float(masked))
    scores = t.apply(
        heads * seq, FP32, [query, met], saves=factors(query, met), kind="unfused", sizes=sizes
    )  # the bias is added in place
    t.drop(met)
    soft = _safe_softmax(t, scores, heads)
    second = t.allocate(
        soft.width * low * t.tokens if low < FP32 else 0.0 * t.tokens
    )  # `attn.to`, which nobody asks for
    weighted = _spread(t, seq, values, width)
    product = t.apply(width, FP32, [soft, weighted], saves=factors(soft, weighted), kind=WITHIN)
    t.drop(weighted)
    result = _made(t, width, low, product) if low < FP32 else t.again(product)
    t.release(second)
    t.drop(product, soft, values, keys, query, *rest, *raised)
    t.release(bias)
    t.drop(*parts)
    return result


def _made(t: Tape, width: Size, bytes_: float, value: Value) -> Value:
    return t.apply(width, bytes_, [value], kind=WITHIN)


def _scaled_query(t: Tape, s: Setting, query: Value) -> list[Value]:
    """What the product takes, then what it is a copy of: heads that lie token by token are copied head by head, but those
    of a single row are a view. Falcon's lie head by head."""
    if broadcasts(s.scenario.model):
        return [_made(t, query.width, FP32, query)]
    copied = t.tokens > s.scenario.seq_length
    first = t.allocate(np.where(copied, query.size, 0.0))
    scaled = t.apply(query.width, FP32, [query], onto=first, kind=WITHIN)
    t.release(first)
    return [t.apply(query.width, FP32, [scaled], flows=("same",), kind=WITHIN), scaled]


def _spread(t: Tape, seq: float, value: Value, width: Size) -> Value:
    """matmul copies one head for all queries' (expand, reshape), but a single row's are a view; the gradient is summed."""
    if value.width is width:
        return t.again(value)
    copy = t.allocate(np.where(t.tokens > seq, width, value.width) * FP32 * t.tokens)
    result = t.apply(width, FP32, [value], onto=copy, kind=WITHIN)
    t.release(copy)
    return result


def _safe_softmax(t: Tape, scores: Value, heads: Size) -> Value:
    """Consumes ``scores``. The softmax, a byte a score and one a row that say where all is masked, and what is returned, all
    at once. torch writes the last over the first (where_out), as the trace does; followed here alone, Falcon's k01 would be
    8% too low in reserved bytes, p14 13%, as where the next tensors lie is then known too roughly: now all are 1 to 3% too
    high. Its backward makes the product of gradient and output (ATen/native/cuda/SoftMax.cu)."""
    inner = [t.allocate(size * t.tokens) for size in (scores.width * FP32, scores.width, heads)]
    soft = t.apply(scores.width, FP32, [scores], scratch=scores.size, kind=WITHIN)
    t.keep_output(soft)
    for storage in reversed(inner):
        t.release(storage)
    t.drop(scores)
    return soft


def factors(one: Value, other: Value) -> list[Storage]:
    """What a product saves: each factor for the other's gradient, where there is one."""
    return [a.storage for a, b in ((one, other), (other, one)) if b.needs_gradient]
