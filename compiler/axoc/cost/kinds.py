"""What each kind of operation launches, forward and backward: the kernels of torch, PEFT, bitsandbytes and Liger.

A kind is what the programs in attention.py, mlp.py, experts.py, layers.py, latent.py and head.py call an operation on the
tape. Backwards are those of torch's derivatives.yaml; lists of launches were checked against the operations that torch
dispatches for a Llama block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from axoc.cost.columns import Floats
from axoc.cost.head import chunk_rows
from axoc.cost.kernels import Kernels
from axoc.cost.operations import Operation
from axoc.cost.scenario import Scenario
from axoc.cost.tape import Size
from axoc.ir.facts import ModelFacts

FP32: Final = 4.0
PRODUCTS: Final = "matrix products"
ATTENTION: Final = "attention"
MEMORY_BOUND: Final = "memory-bound kernels"
CASTS: Final = "weight casts and gradient sums"
LOSS: Final = "loss"
DEQUANTIZATION: Final = "dequantization"
PARTS: Final = (PRODUCTS, ATTENTION, MEMORY_BOUND, CASTS, LOSS, DEQUANTIZATION)


@dataclass(eq=False)
class Meter:
    """Device seconds by part, and launches, of a stretch of operations."""

    scenario: Scenario
    kernels: Kernels
    rows: int
    """Shapes that are counted at once."""
    seconds: dict[str, Floats] = field(default_factory=dict)
    launches: float = 0.0
    triton: float = 0.0
    """Liger's kernels, launched from Python."""
    dequantized: float = 0.0
    """Products with a bitsandbytes weight."""
    adapted: float = 0.0
    """Forwards of layers with an adapter, which PEFT takes through Python."""

    def add(self, part: str, seconds: Floats, launches: float = 1.0) -> None:
        before = self.seconds.get(part, np.zeros(self.rows))
        self.seconds[part] = before + seconds * launches
        self.launches += launches

    def matmul(self, layout: str, m: Size, n: Size, k: Size, bytes_: float) -> None:
        self.add(PRODUCTS, self.kernels.matmul(layout, m, n, k, bytes_))

    def pointwise(self, kernel: str, elements: Size, bytes_: float, width: Size = 0.0, times: float = 1.0) -> None:
        self.add(MEMORY_BOUND, self.kernels.pointwise(kernel, elements, bytes_, width), times)

    def moved(self, num_bytes: Size, launches: float = 1.0) -> None:
        """A kernel that only its bytes are known of."""
        self.add(MEMORY_BOUND, self.kernels.moved(num_bytes / launches), launches)

    def tiny(self, launches: float) -> None:
        """On a number a row, or one alone."""
        if launches:
            self.add(MEMORY_BOUND, self.kernels.moved(np.ones(self.rows)), launches)

    def cast(self, elements: Size, bytes_: float, part: str = MEMORY_BOUND) -> None:
        """``bytes_``: of an element of the input."""
        self.add(part, self.kernels.pointwise("cast", elements, bytes_))

    @property
    def total(self) -> Floats:
        return sum(self.seconds.values(), np.zeros(self.rows))


Kind = Callable[[Operation, Meter], None]


def other(bytes_: float) -> float:
    """Of the dtype on the other side of a cast."""
    return FP32 if bytes_ < FP32 else 2.0


# --- forward


def _unnamed(op: Operation, m: Meter) -> None:
    m.moved(op.elements * op.bytes + sum((v.size for v in op.inputs), 0.0))


def _cast(op: Operation, m: Meter) -> None:
    m.cast(op.elements, op.inputs[0].bytes)


def _linear(op: Operation, m: Meter) -> None:
    inner, outer = op.sizes
    m.matmul("nt", op.tokens, outer, inner, op.bytes)


def _linear_4bit(op: Operation, m: Meter) -> None:
    _dequantize(op, m)
    _linear(op, m)


def _dequantize(op: Operation, m: Meter) -> None:
    """The scales first where they are quantized too: a second kernel, and their offset's addition."""
    nested = m.scenario.double_quantization
    m.dequantized += 1.0
    weights = op.sizes[0] * op.sizes[1]
    m.add(DEQUANTIZATION, m.kernels.dequantize(weights, nested=nested) / (3 if nested else 1), 3 if nested else 1)


def _weight_cast(op: Operation, m: Meter) -> None:
    m.cast(op.sizes[0], FP32, CASTS)


def _adapter(op: Operation, m: Meter) -> None:
    m.adapted += 1.0


def _along(kernel: str) -> Kind:
    """A kernel along rows as wide as the output: of a head where it is normalized head by head."""

    def run(op: Operation, m: Meter) -> None:
        m.pointwise(kernel, op.elements, op.bytes, _row(op, m))

    return run


def _row(op: Operation, m: Meter) -> Size:
    """The stream's norms go along the stream's width; those of queries and keys, in some families, along a head."""
    model = m.scenario.model
    return op.width if model.qk_norm != "head" or op.width is model.hidden_size else float(model.head_dim)


def _flat(kernel: str) -> Kind:
    def run(op: Operation, m: Meter) -> None:
        m.pointwise(kernel, op.elements, op.bytes)

    return run


def _mean(op: Operation, m: Meter) -> None:
    """Mean of the squares, epsilon, reciprocal root."""
    value = op.inputs[0]
    m.pointwise("mean", value.width * op.tokens, value.bytes, value.width)
    m.tiny(2)


def _layer_norm(op: Operation, m: Meter) -> None:
    m.pointwise("layer_norm", op.elements, op.bytes, op.width)


def _rotate_half(op: Operation, m: Meter) -> None:
    """The second half negated, then both put together."""
    m.pointwise("neg", op.elements / 2, op.bytes)
    m.pointwise("cat_halves", op.elements, op.bytes, m.scenario.model.head_dim)


def _rotary_product(op: Operation, m: Meter) -> None:
    m.pointwise("mul_row", op.elements, op.bytes, m.scenario.model.head_dim)


def _nothing(op: Operation, m: Meter) -> None:
    """A view."""


def _attention(op: Operation, m: Meter, *, backward: bool = False) -> None:
    heads, head_dim, masked = op.sizes
    model, seq = m.scenario.model, float(m.scenario.seq_length)
    alike = op.inputs[1].width is op.inputs[0].width
    seconds = m.kernels.attention(
        op.tokens / seq,
        heads,
        heads if alike else heads * model.num_kv_heads / model.num_heads,
        float(np.max(head_dim)),
        seq,
        masked=bool(np.any(masked)),
        backward=backward,
        fused=alike or not broadcasts(model),
    )
    m.add(ATTENTION, seconds)


def broadcasts(model: ModelFacts) -> bool:
    """Falcon hands SDPA one key head for all queries and does not say so (enable_gqa): fused kernels want as many of both
    (ATen/native/transformers/sdp_utils_cpp.h, check_batch_size_and_num_heads_dense), the plain one does it in fp32."""
    return model.family == "falcon" and model.num_kv_heads == 1


def _repeat(op: Operation, m: Meter) -> None:
    m.pointwise("repeat_rows", op.elements / 4, op.bytes, m.scenario.model.head_dim)


def _scores(op: Operation, m: Meter) -> None:
    """A batched product of queries, copied so that heads come first, and keys."""
    query = op.inputs[0]
    m.pointwise("copy", query.width * op.tokens, query.bytes)
    m.add(ATTENTION, _batched(op, m, op.width * op.tokens))


def _weighted_values(op: Operation, m: Meter) -> None:
    m.add(ATTENTION, _batched(op, m, op.inputs[0].width * op.tokens))


def _batched(op: Operation, m: Meter, scores: Size) -> Floats:
    """One of the two products between scores and vectors of a head: as one tall product of the same work."""
    seq = float(m.scenario.seq_length)
    return m.kernels.matmul("nt", scores / seq, seq, op.sizes[0], op.bytes)


def _activation(op: Operation, m: Meter) -> None:
    m.pointwise(_named(m)[0], op.elements, op.bytes)


def _named(m: Meter) -> tuple[str, str]:
    """An activation's kernel and its backward's."""
    silu = m.scenario.model.activation in ("silu", "swish")
    return ("silu", "silu_backward") if silu else ("gelu_tanh", "gelu_tanh_backward")


def _choose(op: Operation, m: Meter) -> None:
    """topk, sum, division."""
    m.tiny(3)


def _liger(op: Operation, m: Meter) -> None:
    """A Triton kernel, known by its bytes."""
    _unnamed(op, m)
    m.launches, m.triton = m.launches - 1.0, m.triton + 1.0


def _send(op: Operation, m: Meter) -> None:
    """Rows gathered; before them the experts' numbers sorted, counted and summed, after them the order turned round."""
    m.moved(2.0 * op.elements * op.bytes)
    m.tiny(6)


def _masked_fill(op: Operation, m: Meter) -> None:
    """A copy, then the filling, which reads and writes it again."""
    m.pointwise("copy", op.elements, op.bytes)
    m.pointwise("mul_scalar", op.elements, op.bytes)


def _grouped(op: Operation, m: Meter) -> None:
    m.add(PRODUCTS, _group(op, m, "forward"))


def _group(op: Operation, m: Meter, role: str) -> Floats:
    moe = m.scenario.model.moe
    assert moe is not None
    copies = moe.experts_per_token
    inner, outer = op.inputs[0].width / copies, op.width / copies
    return m.kernels.grouped(op.tokens * copies, float(moe.num_experts), inner, outer, role, op.bytes)


def _fused_loss(op: Operation, m: Meter) -> None:
    """Chunk by chunk: logits, Liger's kernel in place (read twice, written once), both gradients. Casts as chunk_bytes
    in head.py tells; the weight's gradient is read and written in its own dtype (addmm into it)."""
    trained, lowers = op.sizes
    model = m.scenario.model
    hidden, vocabulary = float(model.hidden_size), float(model.vocab_size)
    rows = chunk_rows(op.tokens, model.hidden_size, model.vocab_size)
    chunks = np.ceil(op.tokens / rows)
    element = float(m.scenario.compute_bytes)
    products = m.kernels.matmul("nt", rows, vocabulary, hidden, element)
    products = products + m.kernels.matmul("nn", rows, hidden, vocabulary, element)
    passes = m.kernels.moved(3.0 * rows * vocabulary * element)
    casts = np.zeros(m.rows)
    if trained:
        products = products + m.kernels.matmul("tn", vocabulary, hidden, rows, element)
        products = products + m.kernels.moved(2.0 * hidden * vocabulary * op.bytes)
    if lowers:  # the transposed weight for each chunk; the weight itself once
        casts = m.kernels.pointwise("cast", hidden * vocabulary, FP32) * (chunks + 1.0) / chunks
    m.add(PRODUCTS, products * chunks, 1.0)
    m.add(LOSS, passes * chunks)
    m.add(CASTS, casts * chunks)
    m.launches += float(np.mean(chunks)) * (8.0 if trained else 6.0)
    m.triton += float(np.mean(chunks))


def _log_softmax(op: Operation, m: Meter) -> None:
    m.add(LOSS, m.kernels.pointwise("log_softmax", op.elements, op.bytes, op.width))


def _nll(op: Operation, m: Meter) -> None:
    m.tiny(2)


FORWARD: Final[dict[str, Kind]] = {
    "": _unnamed,
    "cast": _cast,
    "scale": _flat("mul_scalar"),
    "add": _flat("add"),
    "linear": _linear,
    "linear_4bit": _linear_4bit,
    "weight_cast": _weight_cast,
    "adapter": _adapter,
    "copy": _flat("copy"),
    "dropout": _flat("dropout"),
    "layer_norm": _layer_norm,
    "liger_norm": _liger,
    "pow": _flat("pow2"),
    "mean": _mean,
    "mul_column": _along("mul_column"),
    "mul_row": _along("mul_row"),
    "part": _nothing,
    "slice": _nothing,
    "liger_rope": _liger,
    "mul_rotary": _rotary_product,
    "join_rotary": _flat("copy"),
    "rotate_half": _rotate_half,
    "gather_heads": _flat("copy"),
    "attention": _attention,
    "repeat": _repeat,
    "scores": _scores,
    "tanh": _flat("tanh"),
    "add_mask": _unnamed,
    "softmax": _along("softmax"),
    "weighted_values": _weighted_values,
    "liger_gated": _liger,
    "activation": _activation,
    "mul": _flat("mul"),
    "choose": _choose,
    "send": _send,
    "masked_fill": _masked_fill,
    "mul_weights": _unnamed,
    "sum_experts": _unnamed,
    "grouped": _grouped,
    "log_softmax": _log_softmax,
    "nll": _nll,
    "fused_loss": _fused_loss,
}


# --- backward


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
        _dequantize(op, m)
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
    width = _row(op, m)
    m.pointwise("mul_column", op.elements, op.bytes, width)
    m.pointwise("mul", op.elements, op.bytes)
    m.pointwise("sum_columns", op.elements, op.bytes, width)


def _mul_row_back(op: Operation, m: Meter) -> None:
    width = _row(op, m)
    m.pointwise("mul_row", op.elements, op.bytes, width)
    if op.sizes[0]:
        m.pointwise("mul", op.elements, op.bytes)
        m.pointwise("sum_rows", op.elements, op.bytes, width)


def _layer_norm_back(op: Operation, m: Meter) -> None:
    """Input: reads gradient and input, writes one; weight and bias: reads both again."""
    m.moved(3.0 * op.elements * op.bytes)
    if m.scenario.is_full:
        m.moved(2.0 * op.elements * op.bytes)


def _liger_norm_back(op: Operation, m: Meter) -> None:
    m.moved(3.0 * op.elements * op.bytes)
    m.triton += 1.0


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
    _rotary_product(op, m)
    if op.inputs[0].bytes != op.bytes:
        m.cast(op.elements, op.bytes)


def _join_rotary_back(op: Operation, m: Meter) -> None:
    """The part that is not turned, even an empty one, was cut out: zeros as wide as the whole, added to the rest."""
    m.moved(op.elements * op.bytes)
    m.pointwise("add", op.elements, op.bytes)


def _attention_back(op: Operation, m: Meter) -> None:
    _attention(op, m, backward=True)


def _scores_back(op: Operation, m: Meter) -> None:
    m.add(ATTENTION, _batched(op, m, op.width * op.tokens), 2.0)


def _weighted_values_back(op: Operation, m: Meter) -> None:
    m.add(ATTENTION, _batched(op, m, op.inputs[0].width * op.tokens), 2.0)


def _softmax_back(op: Operation, m: Meter) -> None:
    m.pointwise("softmax_backward", op.elements, op.bytes, _row(op, m))


def _activation_back(op: Operation, m: Meter) -> None:
    m.pointwise(_named(m)[1], op.elements, op.bytes)


def _mul_back(op: Operation, m: Meter) -> None:
    m.pointwise("mul", op.elements, op.bytes, times=float(sum(v.needs_gradient for v in op.inputs)))


def _dropout_back(op: Operation, m: Meter) -> None:
    m.moved(op.elements * (2.0 * op.bytes + 1.0))


def _liger_gated_back(op: Operation, m: Meter) -> None:
    m.moved(5.0 * op.elements * op.bytes)
    m.launches, m.triton = m.launches - 1.0, m.triton + 1.0


def _sum_back(op: Operation, m: Meter) -> None:
    """Broadcast or repeated: the output's gradient is read, the input's is written."""
    m.moved(op.elements * op.bytes + op.inputs[0].size)


def _send_back(op: Operation, m: Meter) -> None:
    """index_put, accumulating: rows sorted first, then read, added and written."""
    m.moved(4.0 * op.elements * op.bytes)
    m.tiny(6)


def _mul_weights_back(op: Operation, m: Meter) -> None:
    m.moved(op.elements * op.bytes + op.inputs[0].size)
    m.moved(op.elements * op.bytes + op.inputs[0].size)


def _grouped_back(op: Operation, m: Meter) -> None:
    if op.parameters:
        m.add(PRODUCTS, _group(op, m, "weight_gradient"))
    if op.needs():
        m.add(PRODUCTS, _group(op, m, "input_gradient"))


def _log_softmax_back(op: Operation, m: Meter) -> None:
    m.add(LOSS, m.kernels.pointwise("log_softmax_backward", op.elements, op.bytes, op.width))


def _nll_back(op: Operation, m: Meter) -> None:
    """Zeros as large as the logits, one filled in a row."""
    m.add(LOSS, m.kernels.moved(op.inputs[0].size))
    m.tiny(1)


def _fused_loss_back(op: Operation, m: Meter) -> None:
    """Both gradients are there; a loss of 1 leaves them as they are, which is looked up first."""
    m.tiny(1)


BACKWARD: Final[dict[str, Kind]] = {
    "": _unnamed_back,
    "cast": _cast_back,
    "scale": _flat("mul_scalar"),
    "add": _add_back,
    "linear": _linear_back,
    "linear_4bit": _linear_4bit_back,
    "copy": _nothing,
    "dropout": _dropout_back,
    "layer_norm": _layer_norm_back,
    "liger_norm": _liger_norm_back,
    "pow": _pow_back,
    "mean": _mean_back,
    "mul_column": _mul_column_back,
    "mul_row": _mul_row_back,
    "part": _part_back,
    "slice": _slice_back,
    "liger_rope": _liger,
    "mul_rotary": _rotary_back,
    "join_rotary": _join_rotary_back,
    "rotate_half": _rotate_half_back,
    "gather_heads": _nothing,
    "attention": _attention_back,
    "repeat": _sum_back,
    "scores": _scores_back,
    "tanh": _flat("tanh_backward"),
    "add_mask": _nothing,
    "softmax": _softmax_back,
    "weighted_values": _weighted_values_back,
    "liger_gated": _liger_gated_back,
    "activation": _activation_back,
    "mul": _mul_back,
    "choose": _choose,
    "send": _send_back,
    "masked_fill": _masked_fill,
    "mul_weights": _mul_weights_back,
    "sum_experts": _sum_back,
    "grouped": _grouped_back,
    "log_softmax": _log_softmax_back,
    "nll": _nll_back,
    "fused_loss": _fused_loss_back,
}
