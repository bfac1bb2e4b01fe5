"""What each kind of operation launches in the backward, after torch's derivatives.yaml. Kinds are those of forward.py."""

from __future__ import annotations

from typing import Final

import numpy as np

from axoc.cost import float8
from axoc.cost.forward import (
    attention,
    batched,
    dequantize,
    elementwise,
    flat,
    gated_kernel,
    group,
    is_first,
    is_part,
    liger,
    masked_fill,
    named,
    nothing,
    rotary_product,
    row,
)
from axoc.cost.losses import tiled
from axoc.cost.meter import ATTENTION, CASTS, LOSS, PRODUCTS, Kind, Meter
from axoc.cost.operations import Operation
from axoc.cost.tape import Size


def _unnamed_back(op: Operation, m: Meter) -> None:
    """Reads the output's gradient, writes those that are new."""
    for value, flow in zip(op.inputs, op.flows, strict=True):
        if value.needs_gradient and flow != "same":
            m.moved(op.elements * op.bytes + value.size)


def _add_back(op: Operation, m: Meter) -> None:
    """The gradient itself; cast where an input was of another dtype."""
    for value, flow in zip(op.inputs, op.flows, strict=True):
        if value.needs_gradient and flow != "same":
            m.cast(op.elements, op.bytes)


def _cast_back(op: Operation, m: Meter) -> None:
    m.cast(op.elements, op.bytes)


def _linear_back(op: Operation, m: Meter) -> None:
    inner, outer = op.sizes
    if op.parameters:
        m.matmul("tn", outer, inner, op.tokens, op.bytes)
        if op.parameters[0].cast:
            m.cast(inner * outer, op.bytes, CASTS)
    if op.needs():
        m.matmul("nn", op.tokens, inner, outer, op.bytes)


def _linear_4bit_back(op: Operation, m: Meter) -> None:
    if op.needs():
        dequantize(op, m)
        m.matmul("nn", op.tokens, op.sizes[0], op.sizes[1], op.bytes)


def _pow_back(op: Operation, m: Meter) -> None:
    """grad * (exponent * x ** (exponent - 1)): three kernels."""
    m.pointwise("pow2", op.elements, op.bytes)
    m.pointwise("mul_scalar", op.elements, op.bytes)
    m.pointwise("mul", op.elements, op.bytes)


def _mean_back(op: Operation, m: Meter) -> None:
    """rsqrt's three small ones, then the mean's gradient spread over the row."""
    m.tiny(3)
    value = op.inputs[0]
    m.moved(value.width * op.tokens * value.bytes)


def _mul_column_back(op: Operation, m: Meter) -> None:
    width = row(op, m)
    m.pointwise("mul_column", op.elements, op.bytes, width)
    m.pointwise("mul", op.elements, op.bytes)
    m.pointwise("sum_columns", op.elements, op.bytes, width)


def _mul_row_back(op: Operation, m: Meter) -> None:
    width = row(op, m)
    m.pointwise("mul_row", op.elements, op.bytes, width)
    if op.sizes[0]:
        m.pointwise("mul", op.elements, op.bytes)
        m.pointwise("sum_rows", op.elements, op.bytes, width)


def _layer_norm_back(op: Operation, m: Meter) -> None:
    """Input: reads gradient and input, writes one; weight and bias, where they are trained: reads both again."""
    if m.scenario.is_full:
        m.pointwise("layer_norm_backward", op.elements, op.bytes, op.width)
        m.tiny(1)
    else:
        m.moved(3.0 * op.elements * op.bytes)


def _liger_norm_back(op: Operation, m: Meter) -> None:
    """Of a trained weight, too: a sum over the multiprocessors' shares, and its cast."""
    if m.scenario.is_full:
        m.liger("rms_norm", op.elements, row(op, m), op.bytes, passes=3.0, backward=True)
        m.launches = m.launches + 2.0
    else:
        m.moved(3.0 * op.elements * op.bytes)
        m.launches, m.triton = m.launches - 1.0, m.triton + 1.0


def _part_back(op: Operation, m: Meter) -> None:
    """Its share of putting the parts' gradients together."""
    m.pointwise("copy", op.elements, op.bytes)


def _slice_back(op: Operation, m: Meter) -> None:
    """Zeros as wide as what it was cut from, and a copy into them."""
    m.moved(op.inputs[0].size)
    m.pointwise("copy", op.elements, op.bytes)


def _rotate_half_back(op: Operation, m: Meter) -> None:
    """Each half's gradient in zeros, the sum of both, the negation; a contiguous copy for the projection."""
    m.pointwise("neg", op.elements / 2, op.bytes)
    for _ in range(2):
        m.moved(op.elements * op.bytes)
        m.pointwise("copy", op.elements / 2, op.bytes)
    m.pointwise("add", op.elements, op.bytes)
    m.pointwise("copy", op.elements, op.bytes)


def _rotary_back(op: Operation, m: Meter) -> None:
    rotary_product(op, m)
    if op.inputs[0].bytes != op.bytes:
        m.cast(op.elements, op.bytes)


def _join_rotary_back(op: Operation, m: Meter) -> None:
    """The part that is not turned, even an empty one, was cut out: zeros as wide as the whole, added to the rest."""
    m.moved(op.elements * op.bytes)
    m.pointwise("add", op.elements, op.bytes)


def _attention_back(op: Operation, m: Meter) -> None:
    attention(op, m, backward=True)


def _unfused_back(op: Operation, m: Meter) -> None:
    attention(op, m, backward=True, fused=False)


def _scores_back(op: Operation, m: Meter) -> None:
    m.add(ATTENTION, batched(op, m, op.width * op.tokens), 2.0)


def _weighted_values_back(op: Operation, m: Meter) -> None:
    m.add(ATTENTION, batched(op, m, op.inputs[0].width * op.tokens), 2.0)


def _softmax_back(op: Operation, m: Meter) -> None:
    m.pointwise("softmax_backward", op.elements, op.bytes, row(op, m))


def _activation_back(op: Operation, m: Meter) -> None:
    elementwise(m, named(m)[1], op, strided=is_part(op.inputs[0]))


def _mul_back(op: Operation, m: Meter) -> None:
    """Each input's gradient is the output's times the other input."""
    for value, other in zip(op.inputs, reversed(op.inputs), strict=True):
        if value.needs_gradient:
            elementwise(m, "mul", op, strided=is_part(other))


def _dropout_back(op: Operation, m: Meter) -> None:
    m.moved(op.elements * (2.0 * op.bytes + 1.0))


def _liger_gated_back(op: Operation, m: Meter) -> None:
    m.liger(gated_kernel(m), op.elements, op.width, op.bytes, passes=5.0, backward=True)


def _sum_back(op: Operation, m: Meter) -> None:
    """Broadcast or repeated: the output's gradient is read, the input's is written."""
    m.moved(op.elements * op.bytes + op.inputs[0].size)


def _send_back(op: Operation, m: Meter) -> None:
    """index_put into zeros, accumulating: rows sorted first, then read, added and written. Before, rows of no expert are filled in a
    copy."""
    if is_first(op):
        masked_fill(op, m)
    m.moved(op.inputs[0].size)
    m.moved(4.0 * op.elements * op.bytes)
    m.tiny(12)


def _choose_back(op: Operation, m: Meter) -> None:
    """Of the chosen weights over their sum: three divisions, a negation, a product, a sum along the row and an addition; then zeros, and
    a scattering into them."""
    m.tiny(9)


def _mul_weights_back(op: Operation, m: Meter) -> None:
    """Of the rows, times a number of each; of those numbers, a product with the rows that is summed along them."""
    m.pointwise("mul_column", op.elements, op.bytes)
    m.pointwise("mul", op.elements, op.bytes)
    m.pointwise("sum_columns", op.elements, op.bytes, op.width)
    m.tiny(14)  # back to their tokens' order: index_put into zeros


def _sum_experts_back(op: Operation, m: Meter) -> None:
    """The gradient, in fp32 as autocast sums, is cast for each expert's row from a tensor that is repeated: as slow as a column's
    product (161 microseconds for 67 million numbers: rows/h100-kernel-times.jsonl.xz, experts-lora)."""
    value = op.inputs[0]
    m.cast(op.elements, value.bytes)
    m.pointwise("mul_column", value.width * op.tokens, value.bytes)


def _pair_back(m: Meter, elements: Size, pair: Size, bytes_: float) -> None:
    """The gradients of an effective weight's two factors read its own whole; before, the factor that lies across experts is copied,
    and after, each is multiplied by the adapter's factor and cast to fp32."""
    m.moved(2.0 * elements * bytes_, 2.0)
    m.moved(pair * bytes_)
    for _ in range(2):
        m.pointwise("mul_scalar", pair / 2, bytes_)
        m.cast(pair / 2, bytes_)


def _grouped_back(op: Operation, m: Meter) -> None:
    if op.parameters:
        m.add(PRODUCTS, group(op, m, "weight_gradient"))
        elements, pair = op.sizes
        if np.max(pair):
            _pair_back(m, elements, pair, op.bytes)
    if op.needs():
        m.add(PRODUCTS, group(op, m, "input_gradient"))


def _log_softmax_back(op: Operation, m: Meter) -> None:
    m.add(LOSS, m.kernels.pointwise("log_softmax_backward", op.elements, op.bytes, op.width))


def _nll_back(op: Operation, m: Meter) -> None:
    """Zeros as large as the logits, one filled in a row."""
    m.add(LOSS, m.kernels.moved(op.inputs[0].size))
    m.tiny(1)


def _fused_loss_back(op: Operation, m: Meter) -> None:
    """Both gradients are there, and are multiplied by the loss's own, which the Trainer's count of labels makes no 1: after a look
    at it, a Triton kernel for each (liger_kernel/ops/fused_linear_cross_entropy.py, fused_linear_cross_entropy_backward)."""
    m.tiny(1)
    model, trained = m.scenario.model, bool(op.sizes[0])
    scaled: list[Size] = [model.hidden_size * op.tokens * op.inputs[0].bytes]
    scaled += [float(model.hidden_size * model.vocab_size) * m.scenario.weight_bytes] if trained else []
    for size in scaled:
        m.moved(2.0 * size)
        m.launches, m.triton = m.launches - 1.0, m.triton + 1.0


def _chunked_loss_back(op: Operation, m: Meter) -> None:
    """Both gradients are there, and are multiplied by the loss's own, a number on the device."""
    gradient = op.inputs[0]
    m.pointwise("mul_tensor_scalar_", gradient.width * op.tokens, gradient.bytes)
    if op.sizes[0]:
        m.pointwise("mul_tensor_scalar_", float(m.scenario.sizes.vocabulary_matrix), float(m.scenario.weight_bytes))


def _log_probabilities_back(op: Operation, m: Meter) -> None:
    """The logits again, turned into their gradient in place, and a product for each gradient."""
    tiled(op, m, passes=2.0, launches=4.0)
    hidden, vocabulary, trained = op.sizes
    element = float(m.scenario.compute_bytes)
    m.add(PRODUCTS, m.kernels.matmul("nn", op.tokens, hidden, vocabulary, element))
    if trained:
        m.add(PRODUCTS, m.kernels.matmul("tn", vocabulary, hidden, op.tokens, element))


BACKWARD: Final[dict[str, Kind]] = {
    "": _unnamed_back,
    "cast": _cast_back,
    "scale": flat("mul_scalar"),
    "add": _add_back,
    "linear": _linear_back,
    "linear_4bit": _linear_4bit_back,
    float8.KIND: float8.backward,
    "copy": nothing,
    "dropout": _dropout_back,
    "layer_norm": _layer_norm_back,
    "liger_norm": _liger_norm_back,
    "pow": _pow_back,
    "mean": _mean_back,
    "mul_column": _mul_column_back,
    "mul_row": _mul_row_back,
    "part": _part_back,
    "slice": _slice_back,
    "liger_rope": liger,
    "mul_rotary": _rotary_back,
    "join_rotary": _join_rotary_back,
    "rotate_half": _rotate_half_back,
    "gather_heads": nothing,
    "attention": _attention_back,
    "unfused": _unfused_back,
    "within": nothing,
    "repeat": _sum_back,
    "scores": _scores_back,
    "tanh": flat("tanh_backward"),
    "add_mask": nothing,
    "softmax": _softmax_back,
    "weighted_values": _weighted_values_back,
    "liger_gated": _liger_gated_back,
    "activation": _activation_back,
    "mul": _mul_back,
    "choose": _choose_back,
    "send": _send_back,
    "masked_fill": masked_fill,
    "mul_weights": _mul_weights_back,
    "sum_experts": _sum_experts_back,
    "grouped": _grouped_back,
    "log_softmax": _log_softmax_back,
    "nll": _nll_back,
    "fused_loss": _fused_loss_back,
    "chunked_loss": _chunked_loss_back,
    "log_probabilities": _log_probabilities_back,
}
