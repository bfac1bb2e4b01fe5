"""A block's attention, operation by operation: projections, positions, the kernel or its plain substitute.

Sources: transformers 5.17 modeling code of the families, integrations/sdpa_attention.py; ATen sdp_utils.cpp (which kernel),
cudnn/MHA.cpp and flash_api.cpp (what it holds).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from axoc.cost import latent
from axoc.cost.layers import DROPOUT, FP32, Setting, add, cast, dropout, linear, lowered, norm, scaled
from axoc.cost.tape import Flow, Size, Tape, Value
from axoc.cost.unfused import LARGEST_SHARED_HEAD, factors, is_unfused, unfused
from axoc.facts.varlen import FLASH_4

SOFTMAX_AS_IT_COMES: Final = ("gpt2", "falcon")
"""Families whose eager softmax is of the scores' dtype, where autocast does not raise it."""
HEADS_FIRST: Final = ("gpt_neox", "phi3", "falcon")
"""Families whose queries are put together (cat) or copied head by head before the kernel."""
PARTIAL_ROTARY: Final = ("gpt_neox", "phi3")
"""Families that put the rotated part and the rest together again, even where the rest is empty."""

ROTARY_SHARE: Final = {"gpt_neox": 0.25}
"""Of a head that positions turn, where it is not all of it (rotary_pct of the published configs)."""
ROTARY_IN_FULL: Final = ("olmo2",)
"""Families whose rotary tables are fp32 whatever the stream, and whose queries and keys are cast back after them."""


@dataclass(frozen=True)
class Heads:
    query: Size
    """Elements a token of all query heads of this rank."""
    key: Size
    """Of the key heads, and of the value heads."""


def attention(t: Tape, s: Setting, value: Value, *, windowed: bool) -> Value:
    """From the block's (normalized) input to the output projection's result. ``windowed``: this block's window is
    shorter than the rows, so there is a mask."""
    model = s.scenario.model
    if model.mla is not None:
        return latent.attention(t, s, value)
    heads = Heads(
        model.num_heads * model.head_dim / s.tensor_parallel, model.num_kv_heads * model.head_dim / s.tensor_parallel
    )
    query, key, values = projections(t, s, value, heads)
    query, key = positions(t, s, query, key)
    result = attend(t, s, query, key, values, masked=windowed)
    output = linear(t, s, result, OUTPUTS.get(model.family, "self_attn.o_proj"), heads.query, model.hidden_size)
    t.drop(result)
    return output


OUTPUTS: Final = {
    "gpt2": "attn.c_proj",
    "gpt_neox": "attention.dense",
    "falcon": "self_attention.dense",
}
FUSED: Final = {
    "gpt2": "attn.c_attn",
    "gpt_neox": "attention.query_key_value",
    "falcon": "self_attention.query_key_value",
    "phi3": "self_attn.qkv_proj",
}
"""Paths of the projections where they are not Llama's."""
INDEXED: Final = ("phi3", "falcon")
"""Families that cut query, key and value from their product one by one, not with one call."""


def projections(t: Tape, s: Setting, value: Value, heads: Heads) -> tuple[Value, Value, Value]:
    model = s.scenario.model
    fused = FUSED.get(model.family)
    if fused is not None:
        return fused_projection(t, s, value, heads, fused)
    made = []
    for name, width in (("q", heads.query), ("k", heads.key), ("v", heads.key)):
        projected = linear(t, s, value, f"self_attn.{name}_proj", model.hidden_size, width)
        if model.qk_norm != "none" and name != "v":
            normal = norm(t, s, projected)
            t.drop(projected)
            projected = normal
        made.append(projected)
    return made[0], made[1], made[2]


def fused_projection(t: Tape, s: Setting, value: Value, heads: Heads, path: str) -> tuple[Value, Value, Value]:
    """Three views of one product. Their gradients are put together in a tensor as wide as it, or each comes in zeros as wide
    where it is indexed."""
    family = s.scenario.model.family
    widths = (heads.query, heads.key, heads.key)
    product = linear(t, s, value, path, s.scenario.model.hidden_size, heads.query + 2 * heads.key)
    if family in INDEXED:
        kind = "slice" if family == "phi3" else "part"
        parts = [t.apply(w, product.bytes, [product], onto=product.storage, kind=kind) for w in widths]
    else:
        parts = t.split(product, *widths)
    t.drop(product)
    if s.scenario.model.family == "falcon":  # _split_heads: indexing copies key and value, broadcasting repeats them
        repeated = heads.query if s.scenario.model.num_kv_heads > 1 else heads.key
        for place in (1, 2):
            copied = t.apply(repeated, product.bytes, [parts[place]])
            t.drop(parts[place])
            parts[place] = copied
        contiguous = t.apply(heads.query, product.bytes, [parts[0]])
        t.drop(parts[0])
        parts[0] = contiguous
    return parts[0], parts[1], parts[2]


def positions(t: Tape, s: Setting, query: Value, key: Value) -> tuple[Value, Value]:
    """Rotary positions; the tables are of the stream's dtype, so fp32 training has queries and keys in fp32."""
    if s.scenario.model.learned_positions:
        return query, key
    if s.liger:  # in place, on contiguous copies of what is a part of a wider product (liger_kernel ops/rope.py)
        places = [None if s.scenario.sizes.fused_qkv else v.storage for v in (query, key)]
        turned = [
            t.apply(v.width, v.bytes, [v], flows=("same",), onto=place, kind="liger_rope")
            for v, place in zip((query, key), places, strict=True)
        ]
    else:
        turned = [rotated(t, s, v) for v in (query, key)]
    t.drop(query, key)
    return turned[0], turned[1]


def rotated(t: Tape, s: Setting, value: Value) -> Value:
    """value * cos + rotate_half(value) * sin, of each head's first part where positions turn no more than that."""
    family = s.scenario.model.family
    in_full = family in ROTARY_IN_FULL
    bytes_ = FP32 if in_full else max(value.bytes, s.stream)
    turned = t.again(value)
    if family in ROTARY_SHARE:
        t.drop(turned)
        width = value.width * ROTARY_SHARE[family]
        turned = t.apply(width, value.bytes, [value], onto=value.storage, kind="slice")
    result = turned_whole(t, turned, bytes_)
    t.drop(turned)
    if in_full:
        narrow = cast(t, result, value.bytes)
        t.drop(result)
        return narrow
    if family not in PARTIAL_ROTARY:
        return result
    whole = t.apply(value.width, bytes_, [result], flows=("same",), kind="join_rotary")
    t.drop(result)
    return whole


def turned_whole(t: Tape, value: Value, bytes_: float) -> Value:
    straight = t.apply(value.width, bytes_, [value], scratch=_narrowed(t, value, bytes_), kind="mul_rotary")
    t.scratch(value.size / 2)
    halves = t.apply(
        value.width, value.bytes, [value], scratch=value.size, kind="rotate_half"
    )  # two slices' zeros, one after the other
    crossed = t.apply(value.width, bytes_, [halves], scratch=_narrowed(t, halves, bytes_), kind="mul_rotary")
    t.drop(halves)
    result = add(t, straight, crossed)
    t.drop(straight, crossed)
    return result


def _narrowed(t: Tape, value: Value, bytes_: float) -> Size:
    """A product's gradient comes in the wider dtype and is cast."""
    return value.width * bytes_ * t.tokens if bytes_ > value.bytes else 0.0


def attend(t: Tape, s: Setting, query: Value, key: Value, values: Value, *, masked: bool) -> Value:
    """Consumes query, key and values."""
    if s.scenario.attention == "eager":
        return eager(t, s, query, key, values)
    model = s.scenario.model
    masked = (masked or s.padded) and not s.scenario.by_document
    shares = s.scenario.by_document or (not masked and model.head_dim <= LARGEST_SHARED_HEAD)
    made = []
    for value in (query, key, values):
        part = value if shares or value is query else repeated(t, s, value, query.width)
        low = cast(t, part, s.compute) if s.autocast else t.again(part)
        t.drop(part)
        made.append(low)
    heads = model.num_heads / s.tensor_parallel
    if is_unfused(s, made[0].bytes, masked=masked):
        return gathered(t, unfused(t, s, made, query.width, heads, masked=masked))
    result = kernel(t, s, made, query.width, heads, model.head_dim, masked=masked)
    return gathered(t, result) if heads_first(s) else result


def heads_first(s: Setting) -> bool:
    """Falcon's new architecture copies its queries token by token, as it splits the heads; so does Liger, as it turns them
    (liger_kernel ops/rope.py)."""
    model = s.scenario.model
    return model.family in HEADS_FIRST and not s.liger and not (model.family == "falcon" and model.num_kv_heads > 1)


def gathered(t: Tape, value: Value) -> Value:
    """transpose(1, 2).contiguous() of an output that is laid out head by head, as its query was; else it is no copy."""
    result = t.apply(value.width, value.bytes, [value], kind="gather_heads")
    t.drop(value)
    return result


def kernel(
    t: Tape, s: Setting, parts: list[Value], width: Size, heads: Size, head_dim: int, *, masked: bool = False
) -> Value:
    """A fused kernel keeps its inputs, its output and a log-sum-exp a row; its backward holds dq and the rows' sums in
    fp32, and dk and dv of each query head where heads are shared. fp32 inputs are taken by other kernels. Flash attention 4
    (flash_attn/cute/interface.py, _flash_attn_bwd) holds the log-sum-exps once more, and dk and dv in fp32 of each key head.

    A boolean mask is made anew in the inputs' dtype for each call, and kept (attention.cpp, convert_boolean_attn_mask).
    """
    low = parts[0].bytes < FP32
    kept = t.allocate((heads * FP32 + (s.scenario.seq_length * parts[0].bytes if masked else 0.0)) * t.tokens)
    flash_4 = s.scenario.attention == FLASH_4
    scratch: Size = heads * (head_dim + (2 if flash_4 else 1)) * FP32 * t.tokens if low else 0.0
    if low and not masked and s.scenario.model.mla is None and parts[1].width is not parts[0].width:
        shared = s.scenario.model.num_kv_heads != s.scenario.model.num_heads
        each = parts[1].width * FP32 if flash_4 else width * parts[0].bytes
        scratch = scratch + (2 * each * t.tokens if shared else 0.0)
    result = t.apply(
        width,
        parts[0].bytes,
        parts,
        saves=[*(p.storage for p in parts), kept],
        scratch=scratch,
        kind="attention",
        sizes=(heads, head_dim, float(masked)),
    )
    t.keep_output(result)
    t.release(kept)
    t.drop(*parts)
    return result


def repeated(t: Tape, s: Setting, value: Value, width: Size) -> Value:
    """repeat_kv: the gradient is summed over the query heads of a group. Falcon repeats as it splits the heads."""
    model = s.scenario.model
    if model.num_kv_heads == model.num_heads or model.mla is not None or model.family == "falcon":
        return value
    single = model.num_kv_heads == 1  # expand and reshape of one head make a view
    result = t.apply(width, value.bytes, [value], onto=value.storage if single else None, kind="repeat")
    t.drop(value)
    return result


def eager(t: Tape, s: Setting, query: Value, key: Value, values: Value) -> Value:
    """Scores in full: product, scale, cap, mask, softmax in fp32, cast, product."""
    model = s.scenario.model
    keys, repeated_values = (dense(t, s, repeated(t, s, v, query.width), query.width) for v in (key, values))
    query = dense(t, s, query, query.width)
    low_query, low_key = lowered(t, s, query), lowered(t, s, keys)
    t.drop(query, keys)
    scores = model.num_heads * s.row_tokens / s.tensor_parallel
    saves = factors(low_query, low_key)
    weights = t.apply(
        scores, low_query.bytes, [low_query, low_key], saves=saves, kind="scores", sizes=(model.head_dim,)
    )
    t.drop(low_query, low_key)
    weights = replaced(t, weights, scaled(t, weights))
    if model.attention_softcapping is not None:
        weights = replaced(t, weights, scaled(t, weights))
        tanh = t.apply(scores, weights.bytes, [weights], kind="tanh")
        t.keep_output(tanh)
        t.drop(weights)
        weights = replaced(t, tanh, scaled(t, tanh))
    summed = max(weights.bytes, s.stream)  # the mask is of the stream's dtype
    flow: Flow = "same" if summed == weights.bytes else "new"
    plain, weights = weights, t.apply(scores, summed, [weights], flows=(flow,), kind="add_mask")
    if model.family != "falcon":  # where the sum has no name of its own
        t.drop(plain)
    as_it_comes = model.family in SOFTMAX_AS_IT_COMES and not s.autocast
    raised = cast(t, weights, weights.bytes if as_it_comes else FP32)  # one kernel for fp16 alone (ATen SoftMax.cpp)
    product = scores * raised.bytes * t.tokens  # of gradient and output (ATen/native/cuda/SoftMax.cu, softmax_backward)
    soft = t.apply(scores, raised.bytes, [raised], scratch=product, kind="softmax")
    t.keep_output(soft)
    t.drop(raised)
    # in `weights = softmax(weights).to(query.dtype)` the scores have their name until the cast is done
    named = model.family not in SOFTMAX_AS_IT_COMES and query.bytes < FP32
    if not named:
        t.drop(weights)
    shares = cast(t, soft, low_query.bytes)
    if named:
        t.drop(weights)
    if model.family == "falcon":  # whose block holds the softmax itself
        t.drop(plain)
        t.held.append(soft)
    else:
        t.drop(soft)
    if model.family in DROPOUT:
        shares = replaced(t, shares, dropout(t, shares))
    low_values = lowered(t, s, repeated_values)
    t.drop(repeated_values)
    result = t.apply(
        query.width,
        shares.bytes,
        [shares, low_values],
        saves=factors(shares, low_values),
        kind="weighted_values",
        sizes=(model.head_dim,),
    )
    t.drop(low_values)
    if model.family != "falcon":  # the layer's frame holds the weights it was handed: `hidden_states, _ = ...`
        t.held.append(shares)
    else:
        t.drop(shares)
    return gathered(t, result)


def dense(t: Tape, s: Setting, value: Value, width: Size) -> Value:
    """matmul copies what it cannot view as one matrix a head: a part of a wider product, heads that are broadcast."""
    model = s.scenario.model
    broadcast = model.family == "falcon" and value.width is not width and model.num_kv_heads == 1
    if not broadcast and value.storage.size is value.size:
        return value
    result = t.apply(width if broadcast else value.width, value.bytes, [value])
    t.drop(value)
    return result


def replaced(t: Tape, old: Value, new: Value) -> Value:
    t.drop(old)
    return new
