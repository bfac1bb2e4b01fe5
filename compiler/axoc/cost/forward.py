"""What each kind of operation launches in a forward: the kernels of torch, PEFT, bitsandbytes and Liger.

A kind is what the programs in attention.py, mlp.py, experts.py, layers.py, latent.py and head.py call an operation on the
tape. The lists of launches were checked against the operations that torch dispatches for a Llama block.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from axoc.cost import chunked, float8
from axoc.cost.columns import Floats
from axoc.cost.head import chunk_rows
from axoc.cost.meter import ATTENTION, CASTS, DEQUANTIZATION, LOSS, PRODUCTS, Kind, Meter
from axoc.cost.operations import Operation
from axoc.cost.preference_head import tiles
from axoc.cost.tape import Size

FP32: Final = 4.0


def _unnamed(op: Operation, m: Meter) -> None:
    m.moved(op.elements * op.bytes + sum((v.size for v in op.inputs), 0.0))


def _cast(op: Operation, m: Meter) -> None:
    m.cast(op.elements, op.inputs[0].bytes)


def _linear(op: Operation, m: Meter) -> None:
    inner, outer = op.sizes
    m.matmul("nt", op.tokens, outer, inner, op.bytes)


def _linear_4bit(op: Operation, m: Meter) -> None:
    dequantize(op, m)
    _linear(op, m)


def dequantize(op: Operation, m: Meter) -> None:
    """The scales first where they are quantized too: a second kernel, and their offset's addition."""
    nested = m.scenario.double_quantization
    m.dequantized += 1.0
    weights = op.sizes[0] * op.sizes[1]
    m.add(DEQUANTIZATION, m.kernels.dequantize(weights, nested=nested) / (3 if nested else 1), 3 if nested else 1)


def _weight_cast(op: Operation, m: Meter) -> None:
    m.cast(op.sizes[0], FP32, CASTS)


def _adapter(op: Operation, m: Meter) -> None:
    m.adapted += 1.0


def _effective_weight(op: Operation, m: Meter) -> None:
    """Made twice: torch calls what register_parametrization is given once, to check its result (nn/utils/parametrize.py,
    ParametrizationList), and PEFT registers anew in each forward. Either time it is a copy of the weight, to which the
    low-rank product is added in place (baddbmm; ATen/native/cuda/Blas.cpp, baddbmm_out_cuda_impl)."""
    elements, bytes_ = op.sizes
    m.adapted += 1.0
    m.moved(2 * 4.0 * elements * bytes_, 4.0)


def _along(kernel: str) -> Kind:
    """A kernel along rows as wide as the output: of a head where it is normalized head by head."""

    def run(op: Operation, m: Meter) -> None:
        m.pointwise(kernel, op.elements, op.bytes, row(op, m))

    return run


def row(op: Operation, m: Meter) -> Size:
    """The stream's norms go along the stream's width; those of queries and keys, in some families, along a head."""
    model = m.scenario.model
    return op.width if model.qk_norm != "head" or op.width is model.hidden_size else float(model.head_dim)


def flat(kernel: str) -> Kind:
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


def rotary_product(op: Operation, m: Meter) -> None:
    m.pointwise("mul_row", op.elements, op.bytes, m.scenario.model.head_dim)


def nothing(op: Operation, m: Meter) -> None:
    """A view."""


def attention(op: Operation, m: Meter, *, backward: bool = False, fused: bool = True) -> None:
    heads, head_dim, masked = op.sizes
    model, seq = m.scenario.model, m.row_tokens
    alike = op.inputs[1].width is op.inputs[0].width
    seconds = m.kernels.attention(
        op.tokens / seq,
        heads,
        heads if alike else heads * model.num_kv_heads / model.num_heads,
        float(np.max(head_dim)),
        seq,
        masked=bool(np.any(masked)),
        backward=backward,
        fused=fused,
        by_document=m.scenario.by_document or m.scenario.attention == "flex",
    )
    m.add(ATTENTION, seconds)


def _unfused(op: Operation, m: Meter) -> None:
    attention(op, m, fused=False)


def _repeat(op: Operation, m: Meter) -> None:
    m.pointwise("repeat_rows", op.elements / 4, op.bytes, m.scenario.model.head_dim)


def _scores(op: Operation, m: Meter) -> None:
    """A batched product of queries, copied so that heads come first, and keys."""
    query = op.inputs[0]
    m.pointwise("copy", query.width * op.tokens, query.bytes)
    m.add(ATTENTION, batched(op, m, op.width * op.tokens))


def _weighted_values(op: Operation, m: Meter) -> None:
    m.add(ATTENTION, batched(op, m, op.inputs[0].width * op.tokens))


def batched(op: Operation, m: Meter, scores: Size) -> Floats:
    """One of the two products between scores and vectors of a head: as one tall product of the same work."""
    return m.kernels.matmul("nt", scores / m.row_tokens, m.row_tokens, op.sizes[0], op.bytes)


def _activation(op: Operation, m: Meter) -> None:
    m.pointwise(named(m)[0], op.elements, op.bytes)


def named(m: Meter) -> tuple[str, str]:
    """An activation's kernel and its backward's."""
    silu = m.scenario.model.activation in ("silu", "swish")
    return ("silu", "silu_backward") if silu else ("gelu_tanh", "gelu_tanh_backward")


def choose(op: Operation, m: Meter) -> None:
    """topk, sum, division."""
    m.tiny(3)


def liger(op: Operation, m: Meter) -> None:
    """A Triton kernel, known by its bytes."""
    _unnamed(op, m)
    m.launches, m.triton = m.launches - 1.0, m.triton + 1.0


def _send(op: Operation, m: Meter) -> None:
    """Rows gathered; before them the experts' numbers sorted, counted and summed, after them the order turned round."""
    m.moved(2.0 * op.elements * op.bytes)
    m.tiny(6)


def masked_fill(op: Operation, m: Meter) -> None:
    """A copy, then the filling, which reads and writes it again."""
    m.pointwise("copy", op.elements, op.bytes)
    m.pointwise("mul_scalar", op.elements, op.bytes)


def _grouped(op: Operation, m: Meter) -> None:
    m.add(PRODUCTS, group(op, m, "forward"))


def group(op: Operation, m: Meter, role: str) -> Floats:
    moe = m.scenario.model.moe
    assert moe is not None
    copies = moe.experts_per_token
    inner, outer = op.inputs[0].width / copies, op.width / copies
    return m.kernels.grouped(op.tokens * copies, float(moe.num_experts), inner, outer, role, op.bytes)


def _fused_loss(op: Operation, m: Meter) -> None:
    """As measured as a whole; else chunk by chunk: logits, Liger's kernel in place (read twice, written once), both gradients.
    Casts as chunk_bytes
    in head.py tells; the weight's gradient is read and written in its own dtype (addmm into it)."""
    trained, lowers = op.sizes
    model = m.scenario.model
    hidden, vocabulary = float(model.hidden_size), float(model.vocab_size)
    rows = chunk_rows(op.tokens, model.hidden_size, model.vocab_size)
    chunks = np.ceil(op.tokens / rows)
    m.launches = m.launches + chunks * (8.0 if trained else 6.0)
    m.triton = m.triton + chunks
    whole = m.kernels.fused_loss(op.tokens, hidden, vocabulary, trained=bool(trained))
    if whole is not None and not lowers:
        m.add(LOSS, whole, 1.0)
        return
    element = float(m.scenario.compute_bytes)
    products = m.kernels.matmul("nt", rows, vocabulary, hidden, element)
    products = products + m.kernels.matmul("nn", rows, hidden, vocabulary, element)
    passes = m.kernels.moved(3.0 * rows * vocabulary * element)
    casts = np.zeros(m.rows)
    if (
        trained
    ):  # addmm: read and written in its own dtype by the product's kernel, which else writes it in the compute dtype
        products = products + m.kernels.matmul("tn", vocabulary, hidden, rows, element)
        products = products + m.kernels.moved(hidden * vocabulary * (2.0 * op.bytes - element))
    if lowers:  # the transposed weight for each chunk; the weight itself once
        casts = m.kernels.pointwise("cast", hidden * vocabulary, FP32) * (chunks + 1.0) / chunks
    m.add(PRODUCTS, products * chunks, 1.0)
    m.add(LOSS, passes * chunks)
    m.add(CASTS, casts * chunks)


def _chunked_loss(op: Operation, m: Meter) -> None:
    """Chunk by chunk: logits, what is done to them (in compiled code two readings and a writing), both gradients; that of
    the weight is a product that is then added."""
    trained, copies = op.sizes
    model, element = m.scenario.model, float(m.scenario.compute_bytes)
    hidden, vocabulary = float(model.hidden_size), float(model.vocab_size)
    rows = chunked.chunk_rows(op.tokens, model.vocab_size)
    chunks = np.ceil(op.tokens / rows)
    products = m.kernels.matmul("nt", rows, vocabulary, hidden, element)
    products = products + m.kernels.matmul("nn", rows, hidden, vocabulary, element)
    each = 3.0 * element if m.scenario.compile else 2.0 * element + chunked.EAGER_BYTES
    passes = m.kernels.moved(each * rows * vocabulary)
    if trained:
        products = products + m.kernels.matmul("tn", vocabulary, hidden, rows, element)
        held = float(m.scenario.trainable_bytes)  # of one dtype the product is added in its own kernel
        passes = passes + m.kernels.moved(hidden * vocabulary * (2.0 * held + (element if held != element else 0.0)))
    if copies:
        m.cast(hidden * vocabulary, FP32, CASTS)
    m.add(PRODUCTS, products * chunks, 1.0)
    m.add(LOSS, passes * chunks, 1.0)
    m.launches = m.launches + chunks * (9.0 if m.scenario.compile else 24.0)


def _log_probabilities(op: Operation, m: Meter) -> None:
    """Tile by tile: the logits, then one kernel that folds them into what is kept of each row (reads them once)."""
    tiled(op, m, passes=1.0, launches=2.0)


def tiled(op: Operation, m: Meter, *, passes: float, launches: float) -> None:
    hidden, vocabulary, _ = op.sizes
    element = float(m.scenario.compute_bytes)
    m.add(PRODUCTS, m.kernels.matmul("nt", op.tokens, vocabulary, hidden, element))
    m.add(LOSS, m.kernels.moved(passes * op.tokens * vocabulary * element))
    m.launches = m.launches + tiles(op.tokens, float(vocabulary)) * launches


def _log_softmax(op: Operation, m: Meter) -> None:
    m.add(LOSS, m.kernels.pointwise("log_softmax", op.elements, op.bytes, op.width))


def _nll(op: Operation, m: Meter) -> None:
    m.tiny(2)


FORWARD: Final[dict[str, Kind]] = {
    "": _unnamed,
    "cast": _cast,
    "scale": flat("mul_scalar"),
    "add": flat("add"),
    "linear": _linear,
    "linear_4bit": _linear_4bit,
    float8.KIND: float8.forward,
    "weight_cast": _weight_cast,
    "adapter": _adapter,
    "effective_weight": _effective_weight,
    "copy": flat("copy"),
    "dropout": flat("dropout"),
    "layer_norm": _layer_norm,
    "liger_norm": liger,
    "pow": flat("pow2"),
    "mean": _mean,
    "mul_column": _along("mul_column"),
    "mul_row": _along("mul_row"),
    "part": nothing,
    "slice": nothing,
    "liger_rope": liger,
    "mul_rotary": rotary_product,
    "join_rotary": flat("copy"),
    "rotate_half": _rotate_half,
    "gather_heads": flat("copy"),
    "attention": attention,
    "unfused": _unfused,
    "within": nothing,
    "repeat": _repeat,
    "scores": _scores,
    "tanh": flat("tanh"),
    "add_mask": _unnamed,
    "softmax": _along("softmax"),
    "weighted_values": _weighted_values,
    "liger_gated": liger,
    "activation": _activation,
    "mul": flat("mul"),
    "choose": choose,
    "send": _send,
    "masked_fill": masked_fill,
    "mul_weights": _unnamed,
    "sum_experts": _unnamed,
    "grouped": _grouped,
    "log_softmax": _log_softmax,
    "nll": _nll,
    "fused_loss": _fused_loss,
    "chunked_loss": _chunked_loss,
    "log_probabilities": _log_probabilities,
}
