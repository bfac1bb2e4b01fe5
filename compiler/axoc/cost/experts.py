"""A block's experts: router, gathered rows, two grouped products, weighted sum.

Source: transformers 5.17 integrations/moe.py (grouped_mm_experts_forward), models/*/modeling_*.py for the routers.
"""

from __future__ import annotations

from axoc.cost.layers import FP32, Setting, add, cast, lowered
from axoc.cost.mlp import activated, mlp, times
from axoc.cost.tape import Parameter, Size, Tape, Value
from axoc.facts.adapters import ROUTER

INDEX_BYTES = 8.0


def experts(t: Tape, s: Setting, value: Value) -> Value:
    """Replaces the MLP; shared experts run beside."""
    moe = s.scenario.model.moe
    assert moe is not None
    routed = grouped(t, s, value)
    if not moe.shared_intermediate_size:
        return routed
    shared = mlp(t, s, value, moe.shared_intermediate_size, "mlp.shared_experts")
    result = add(t, routed, shared)
    t.drop(routed, shared)
    return result


def router(t: Tape, s: Setting, value: Value) -> Value:
    """Scores of all experts in fp32; DeepSeek casts its input for it, which autocast casts back. The result: a weight for each row sent."""
    moe, model = s.scenario.model.moe, s.scenario.model
    assert moe is not None
    upcast = model.family.startswith("deepseek")
    raised = cast(t, value, FP32) if upcast else t.again(value)
    entered = lowered(t, s, raised)
    t.drop(raised)
    weights, adapted = model.hidden_size * moe.num_experts, ROUTER in s.expert_targets
    parameters = [s.parameter(weights, entered.bytes, s.weight)] if s.trained else []
    if adapted:  # the weight with its low-rank product added, made anew, wants a gradient
        t.did("effective_router")
        parameters = [Parameter(weights * entered.bytes, 0.0, False)]
    saves = [entered.storage] if parameters else []
    logits = t.apply(
        moe.num_experts,
        entered.bytes,
        [entered],
        saves=saves,
        parameters=parameters,
        kind="linear",
        sizes=(model.hidden_size, moe.num_experts),
    )
    t.drop(entered)
    scores = t.apply(moe.num_experts, FP32, [logits], kind="softmax")
    t.keep_output(scores)
    chosen = t.apply(moe.experts_per_token, FP32 + INDEX_BYTES, [scores], kind="choose")
    t.held.append(logits)  # the block's frame holds what the router returned
    t.drop(scores)
    return chosen


def grouped(t: Tape, s: Setting, value: Value) -> Value:
    """Every token once for each of its experts, sorted by expert."""
    moe, model = s.scenario.model.moe, s.scenario.model
    assert moe is not None
    copies, hidden = moe.experts_per_token, model.hidden_size
    width = moe.expert_intermediate_size / s.tensor_parallel
    weights = router(t, s, value)
    order = t.allocate(copies * 3 * INDEX_BYTES * t.tokens)
    rows = t.apply(copies * hidden, value.bytes, [value], saves=[order], kind="send")
    up = product(t, s, rows, "gate_up_proj", 2 * width * hidden * moe.num_experts, 2 * width * copies)
    masked = t.apply(up.width, up.bytes, [up], kind="masked_fill")
    t.drop(up)
    gate, other = t.split(masked, width * copies, width * copies)
    t.drop(masked)
    active = activated(t, gate)
    t.drop(gate)
    inner = times(t, active, other)
    down = product(t, s, inner, "down_proj", width * hidden * moe.num_experts, copies * hidden)
    t.drop(inner)
    masked = t.apply(down.width, down.bytes, [down], kind="masked_fill")
    t.drop(down)
    weighted = weigh(t, s, masked, weights)
    back = t.apply(weighted.width, weighted.bytes, [weighted], saves=[order], kind="send")
    t.drop(weighted, weights)
    total = t.apply(hidden, back.bytes, [back], flows=("new",), kind="sum_experts")
    t.release(order)
    result = cast(t, total, value.bytes)
    t.drop(rows, masked, back, total)  # the function's names for them
    return result


def weigh(t: Tape, s: Setting, rows: Value, weights: Value) -> Value:
    """Each row times its routing weight. Weights in fp32 make the product fp32, and so the gradients of both factors, whole, before
    the rows' is cast and the weights' is summed."""
    bytes_ = max(rows.bytes, weight_bytes(s))
    raised = bytes_ > rows.bytes
    return t.apply(
        rows.width,
        bytes_,
        [rows, weights],
        flows=("lowered", "lowered") if raised else (),
        saves=[rows.storage, weights.storage],
        scratch=0.0 if raised else rows.size,
        kind="mul_weights",
    )


def weight_bytes(s: Setting) -> float:
    """Of a routing weight: fp32 in Mixtral and DeepSeek V2, cast back in Qwen3; in DeepSeek V3, which takes a sigmoid, as the
    router's product gives it."""
    family = s.scenario.model.family
    lowered_product = family == "deepseek_v3" and s.autocast
    return s.compute if family == "qwen3_moe" or lowered_product else FP32


def low_rank(s: Setting, name: str) -> float:
    """Elements of the experts' low-rank pairs: copies in the weight's dtype are kept beside the whole weight."""
    moe, adapter, hidden = s.scenario.model.moe, s.scenario.adapter, s.scenario.model.hidden_size
    assert moe is not None and adapter is not None
    width = moe.expert_intermediate_size
    if name == "down_proj":
        return float(moe.num_experts * adapter.rank * (width + hidden))
    return float(moe.num_experts * 2 * adapter.rank * (hidden + 2 * width))  # two projections: twice the rank


def product(t: Tape, s: Setting, rows: Value, name: str, weights: Size, outer: Size) -> Value:
    """torch's grouped product computes in the weights' dtype; autocast does not know it. An adapter of experts makes
    the whole weight anew, low-rank product added, and keeps it (peft/tuners/lora/layer.py, ParamWrapper)."""
    low = cast(t, rows, s.weight)
    adapted = name in s.expert_targets
    effective = t.allocate((weights + low_rank(s, name)) * s.weight) if adapted else None
    if adapted:
        t.did("effective_weight", weights, s.weight, low_rank(s, name))
    parameters: list[Parameter] = [s.parameter(weights, s.weight, s.weight)] if s.trained else []
    if adapted:  # the gradient goes on to the low-rank pair
        parameters = [Parameter(weights * s.weight, 0.0, False)]
    saves = [low.storage] if parameters else []
    saves += [effective] if effective is not None else []
    viewed = None
    if not s.folded and effective is None:  # ZeRO-3 lets go of a weight, not of the transposed view that is saved
        viewed = t.allocate(weights * s.weight)
        saves += [viewed]
    result = t.apply(
        outer,
        s.weight,
        [low],
        saves=saves,
        parameters=parameters,
        kind="grouped",
        sizes=(weights, low_rank(s, name) if adapted else 0.0),
    )
    if viewed is not None:
        t.release(viewed)
    if effective is not None:
        t.held_storages.append(effective)  # parametrize.cached: until the layer is done
    t.drop(low)
    return result
