"""Multi-head latent attention (DeepSeek V2 and V3): compressed queries and keys, expanded for the kernel."""

from __future__ import annotations

from axoc.cost.layers import FP32, Setting, cast, linear, norm
from axoc.cost.tape import Tape, Value


def attention(t: Tape, s: Setting, value: Value) -> Value:
    """transformers models/deepseek_v3/modeling_deepseek_v3.py, DeepseekV3Attention.forward."""
    from axoc.cost.attention import eager, gathered, kernel

    model = s.scenario.model
    mla = model.mla
    assert mla is not None
    heads = model.num_heads / s.tensor_parallel
    head = mla.qk_nope_head_dim + mla.qk_rope_head_dim
    query = _queries(t, s, value, heads * head)
    compressed = linear(
        t, s, value, "self_attn.kv_a_proj_with_mqa", model.hidden_size, mla.kv_lora_rank + mla.qk_rope_head_dim
    )
    latent = t.apply(mla.kv_lora_rank, compressed.bytes, [compressed], onto=compressed.storage)
    turned = t.apply(mla.qk_rope_head_dim, max(compressed.bytes, s.stream), [compressed])
    t.drop(compressed)
    normal = norm(t, s, latent)
    t.drop(latent)
    rotated = t.apply(heads * mla.qk_rope_head_dim, max(query.bytes, s.stream), [query])
    whole = t.apply(heads * head, max(query.bytes, s.stream), [query, rotated], flows=("new", "new"))
    expanded = linear(
        t, s, normal, "self_attn.kv_b_proj", mla.kv_lora_rank, heads * (mla.qk_nope_head_dim + mla.v_head_dim)
    )
    t.drop(normal)
    key = t.apply(heads * head, expanded.bytes, [expanded, turned])
    values = t.apply(heads * mla.v_head_dim, expanded.bytes, [expanded], onto=expanded.storage)
    # these stay until the function returns: names for parts of query and keys
    held = (query, rotated, expanded, turned)
    if s.scenario.attention == "eager":
        result = eager(t, s, whole, key, values)
    else:
        parts = [cast(t, p, s.compute) if s.autocast else t.again(p) for p in (whole, key, values)]
        t.drop(whole, key, values)
        result = gathered(t, kernel(t, s, parts, heads * mla.v_head_dim, heads, head))
    output = linear(t, s, result, "self_attn.o_proj", heads * mla.v_head_dim, model.hidden_size)
    t.drop(result, *held)
    return output


def _queries(t: Tape, s: Setting, value: Value, width: object) -> Value:
    model, mla = s.scenario.model, s.scenario.model.mla
    assert mla is not None
    if mla.q_lora_rank is None:
        return linear(t, s, value, "self_attn.q_proj", model.hidden_size, width)  # type: ignore[arg-type]
    low = linear(t, s, value, "self_attn.q_a_proj", model.hidden_size, mla.q_lora_rank)
    normal = norm(t, s, low)
    t.drop(low)
    result = linear(t, s, normal, "self_attn.q_b_proj", mla.q_lora_rank, width)  # type: ignore[arg-type]
    t.drop(normal)
    return result


__all__ = ["FP32", "attention"]
