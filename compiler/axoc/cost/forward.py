"""What each kind of operation launches in a forward: the kernels of torch, PEFT, bitsandbytes and Liger.

A kind is what the programs in attention.py, mlp.py, experts.py, layers.py, latent.py and head.py call an operation on the
tape. The lists of launches were checked against the operations that torch dispatches for a Llama block.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from axoc.cost import float8
from axoc.cost.columns import Floats
from axoc.cost.losses import LOSS_KERNELS
from axoc.cost.meter import ATTENTION, CASTS, DEQUANTIZATION, MEMORY_BOUND, PRODUCTS, Kind, Meter
from axoc.cost.operations import Operation
from axoc.cost.tape import Size, Value
from axoc.facts.varlen import FLASH_4

FP32: Final = 4.0
MASK_LAUNCHES: Final = 3.0
"""By which a fused attention makes a boolean mask one of its own dtype: zeros, the mask's opposite, the filling of where it is not
(ATen/native/transformers/attention.cpp, convert_boolean_attn_mask). Their seconds are in those of the attention as measured."""
PARAMETRIZED_OPERATIONS: Final = 13.2
"""As long as which PEFT takes, beside its kernels, to register an adapted parameter of a block's experts anew in each forward, and to
take it out again: torch makes a class for it. On an H100's host a forward is 315 microseconds longer with such an adapter, and 82 with
one of a linear layer; an operation (mul, add and silu, forward and backward) takes 17.6 there
(benchmarks/rows/h100-host-pieces.json). The few kernels of either are taken to be as many."""


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
    low-rank product is added in place (baddbmm; ATen/native/cuda/Blas.cpp, baddbmm_out_cuda_impl). Of the pair, which is cast from fp32,
    one factor lies across experts and is copied for cuBLAS each time (prepare_batch_matrix_for_cublas)."""
    elements, bytes_, pair = op.sizes
    m.adapted += 1.0
    m.launches = m.launches + PARAMETRIZED_OPERATIONS
    for _ in range(2):
        m.cast(pair / 2, FP32)
        m.moved(pair * bytes_)
    m.moved(2 * 4.0 * elements * bytes_, 4.0)


def _one_plus(op: Operation, m: Meter) -> None:
    """Gemma's norms are times one more than their weight, which is raised to fp32 first (modeling_gemma2.py, Gemma2RMSNorm)."""
    m.tiny(1.0 if op.sizes[0] == FP32 else 2.0)


def _effective_router(op: Operation, m: Meter) -> None:
    """A router's weight is a parameter that PEFT registers anew, too: the factors are cast and multiplied, and the scaled product is
    added twice."""
    m.adapted += 1.0
    m.launches = m.launches + PARAMETRIZED_OPERATIONS
    m.tiny(6)


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


def _join_rotary(op: Operation, m: Meter) -> None:
    """What is turned beside what is not, which is cast where it is of another dtype: autocast takes cat to the widest."""
    rest = (op.width - op.inputs[0].width) * op.tokens
    if op.bytes != m.scenario.compute_bytes and np.max(rest) > 0:
        m.cast(rest, float(m.scenario.compute_bytes))
    m.pointwise("copy", op.elements, op.bytes)


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
        flash_4=m.scenario.attention == FLASH_4,
    )
    m.add(ATTENTION, seconds)
    if fused and not backward and np.any(masked):
        m.launches = m.launches + MASK_LAUNCHES


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
    elementwise(m, named(m)[0], op, strided=is_part(op.inputs[0]))


def elementwise(m: Meter, kernel: str, op: Operation, *, strided: bool, times: float = 1.0) -> None:
    """torch vectorizes what lies in one piece; of a part of a wider tensor it computes each element's place (ATen/native/cuda/
    CUDALoops.cuh, gpu_kernel_impl), as of a column that is broadcast. Measured on halves of a fused product: twice as long for one
    input, half as long again for two."""
    m.add(MEMORY_BOUND, strided_seconds(m, kernel, op.elements, op.bytes, strided), times)


def strided_seconds(m: Meter, kernel: str, elements: Size, bytes_: float, strided: bool) -> Floats:
    seconds = m.kernels.pointwise(kernel, elements, bytes_)
    return np.maximum(seconds, m.kernels.pointwise("mul_column", elements, bytes_)) if strided else seconds


def is_part(value: Value) -> bool:
    """Of a wider tensor, whose memory it lies in."""
    return bool(np.max(value.storage.size) > np.max(value.size))


def _mul(op: Operation, m: Meter) -> None:
    elementwise(m, "mul", op, strided=any(map(is_part, op.inputs)))


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


def _liger_norm(op: Operation, m: Meter) -> None:
    width = row(op, m)
    m.liger("rms_norm", op.elements, width, op.bytes, passes=2.0)


def _liger_gated(op: Operation, m: Meter) -> None:
    m.liger(gated_kernel(m), op.elements, op.width, op.bytes, passes=3.0)


def gated_kernel(m: Meter) -> str:
    return "swiglu" if named(m)[0] == "silu" else "geglu"


def _send(op: Operation, m: Meter) -> None:
    """Rows gathered. Before, the experts' numbers are sorted (eight kernels), counted and summed, and after it rows of no expert
    are filled in place; on the way back the order is turned round."""
    m.moved(2.0 * op.elements * op.bytes)
    if is_first(op):
        m.pointwise("mul_column", op.elements, op.bytes)
    m.tiny(18 if is_first(op) else 6)


def is_first(op: Operation) -> bool:
    """Tokens become rows, each several; on the way back they stay as many."""
    return bool(np.max(op.width) > np.max(op.inputs[0].width))


def masked_fill(op: Operation, m: Meter) -> None:
    """A copy, then the filling, which reads and writes it again; by the row, as a product with a column."""
    m.pointwise("copy", op.elements, op.bytes)
    m.pointwise("mul_column", op.elements, op.bytes)


def _sum_experts(op: Operation, m: Meter) -> None:
    """To fp32, as autocast asks of a sum, and back."""
    m.moved(op.inputs[0].size + op.elements * FP32)
    m.cast(op.elements, FP32)


def _grouped(op: Operation, m: Meter) -> None:
    m.add(PRODUCTS, group(op, m, "forward"))


def group(op: Operation, m: Meter, role: str) -> Floats:
    moe = m.scenario.model.moe
    assert moe is not None
    copies = moe.experts_per_token
    inner, outer = op.inputs[0].width / copies, op.width / copies
    return m.kernels.grouped(op.tokens * copies, float(moe.num_experts), inner, outer, role, op.bytes)


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
    "effective_router": _effective_router,
    "effective_weight": _effective_weight,
    "copy": flat("copy"),
    "dropout": flat("dropout"),
    "layer_norm": _layer_norm,
    "liger_norm": _liger_norm,
    "pow": flat("pow2"),
    "mean": _mean,
    "one_plus": _one_plus,
    "mul_column": _along("mul_column"),
    "mul_row": _along("mul_row"),
    "part": nothing,
    "slice": nothing,
    "liger_rope": liger,
    "mul_rotary": rotary_product,
    "join_rotary": _join_rotary,
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
    "liger_gated": _liger_gated,
    "activation": _activation,
    "mul": _mul,
    "choose": choose,
    "send": _send,
    "masked_fill": masked_fill,
    "mul_weights": flat("mul_column"),
    "sum_experts": _sum_experts,
    "grouped": _grouped,
    **LOSS_KERNELS,
}
