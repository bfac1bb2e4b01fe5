"""A block's MLP, operation by operation: gated or not, whole or with gate and up in one product."""

from __future__ import annotations

from typing import Final

from axoc.cost.layers import FP32, Setting, add, cast, linear
from axoc.cost.tape import Flow, Size, Tape, Value

PATHS: Final = {
    "gpt2": ("mlp.c_fc", "mlp.c_proj"),
    "gpt_neox": ("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
    "falcon": ("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
}
FUSED: Final = "mlp.gate_up_proj"


def mlp(t: Tape, s: Setting, value: Value, width: int, prefix: str = "mlp") -> Value:
    """``width``: intermediate features before they are divided among ranks."""
    wide: Size = width / s.tensor_parallel
    if not s.scenario.model.gated_mlp:
        return ungated(t, s, value, wide)
    inner, outer = s.scenario.model.hidden_size, s.scenario.model.hidden_size
    if s.scenario.sizes.fused_gate_up:
        both = linear(t, s, value, FUSED, inner, 2 * wide)
        gate, up = t.split(both, wide, wide)
        product = gated(t, s, gate, up)
        t.held.append(both)  # the function's names for its parts
    elif s.liger:
        gate = linear(t, s, value, f"{prefix}.gate_proj", inner, wide)
        up = linear(t, s, value, f"{prefix}.up_proj", inner, wide)
        product = gated(t, s, gate, up)
    else:
        gate = linear(t, s, value, f"{prefix}.gate_proj", inner, wide)
        active = activated(t, gate)
        t.drop(gate)
        up = linear(t, s, value, f"{prefix}.up_proj", inner, wide)
        product = times(t, active, up)
    result = linear(t, s, product, f"{prefix}.down_proj", wide, outer)
    t.drop(product)
    return result


def gated(t: Tape, s: Setting, gate: Value, up: Value) -> Value:
    """act(gate) * up. Liger keeps gate and up, whole, and writes their gradients over them (ops/swiglu.py)."""
    if not s.liger:
        active = activated(t, gate)
        t.drop(gate)
        return times(t, active, up)
    parts = [gate, up]
    if s.scenario.sizes.fused_gate_up:
        parts = [t.apply(p.width, p.bytes, [p], flows=("same",), kind="copy") for p in (gate, up)]
        t.drop(gate, up)
    flow: Flow = "over" if s.overwrites else "new"
    result = t.apply(
        gate.width, gate.bytes, parts, saves=[p.storage for p in parts], flows=(flow, flow), kind="liger_gated"
    )
    t.drop(*parts)
    return result


def activated(t: Tape, value: Value) -> Value:
    """A fused activation keeps its input."""
    return t.apply(value.width, value.bytes, [value], saves=[value.storage], kind="activation")


def times(t: Tape, one: Value, other: Value) -> Value:
    """A product keeps both factors. Consumes them."""
    result = t.apply(
        one.width, max(one.bytes, other.bytes), [one, other], saves=[one.storage, other.storage], kind="mul"
    )
    t.drop(one, other)
    return result


def ungated(t: Tape, s: Setting, value: Value, width: Size) -> Value:
    model = s.scenario.model
    up, down = PATHS.get(model.family, ("mlp.up_proj", "mlp.down_proj"))
    inner = linear(t, s, value, up, model.hidden_size, width)
    active = UNFUSED[model.activation](t, s, inner) if model.activation in UNFUSED else activated(t, inner)
    t.drop(inner)
    result = linear(t, s, active, down, width, model.hidden_size)
    t.drop(active)
    return result


def gelu_new(t: Tape, s: Setting, value: Value) -> Value:
    """0.5 x (1 + tanh(c (x + 0.044715 x ** 3))) from single operations (transformers/activations.py); autocast raises
    the power to fp32, and what follows from it."""
    half = t.apply(value.width, value.bytes, [value], kind="scale")
    raised = cast(t, value, FP32) if s.autocast else t.again(value)
    full = raised.size
    power = t.apply(
        value.width, raised.bytes, [raised], saves=[raised.storage], scratch=2 * full, kind="pow"
    )  # grad * (3 * x ** 2)
    t.drop(raised)
    small = t.apply(value.width, power.bytes, [power], kind="scale")
    t.drop(power)
    total = add(t, value, small)
    t.drop(small)
    inner = t.apply(value.width, total.bytes, [total], kind="scale")
    t.drop(total)
    tanh = t.apply(value.width, inner.bytes, [inner], kind="tanh")
    t.keep_output(tanh)
    t.drop(inner)
    one_more = t.apply(value.width, tanh.bytes, [tanh], flows=("same",), kind="add_mask")
    t.drop(tanh)
    return times(t, half, one_more)


def gelu_fast(t: Tape, s: Setting, value: Value) -> Value:
    """0.5 x (1 + tanh(c x (1 + 0.044715 x x))) from single operations (the same file)."""
    half = t.apply(value.width, value.bytes, [value], kind="scale")
    scaled = t.apply(value.width, value.bytes, [value], kind="scale")
    small = t.apply(value.width, value.bytes, [value], kind="scale")
    square = times(t, small, t.again(value))
    one_more = t.apply(value.width, square.bytes, [square], flows=("same",), kind="add_mask")
    t.drop(square)
    inner = times(t, scaled, one_more)
    tanh = t.apply(value.width, inner.bytes, [inner], kind="tanh")
    t.keep_output(tanh)
    t.drop(inner)
    last = t.apply(value.width, tanh.bytes, [tanh], flows=("same",), kind="add_mask")
    t.drop(tanh)
    return times(t, half, last)


UNFUSED: Final = {"gelu_new": gelu_new, "gelu_fast": gelu_fast}
"""Activations that transformers writes out."""
