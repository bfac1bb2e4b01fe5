"""Matrix products, attention and dequantization among what was dispatched."""

from __future__ import annotations

from math import prod
from typing import Final

import numpy as np

from axoc.cost import lengths
from axoc.cost.columns import Columns
from axoc.cost.dispatched.operation import Given, Shape
from axoc.cost.forward import MASK_LAUNCHES
from axoc.cost.meter import ATTENTION, DEQUANTIZATION, PRODUCTS, Meter
from axoc.facts.varlen import FLASH_4

FP32: Final = 4.0


def product(left: Shape, right: Shape, m: Meter, *, part: str = PRODUCTS) -> None:
    """Of two matrices, or of as many pairs of them as a batch has: as one tall product of the same work, which reads no less than all of
    them."""
    layout = "tn" if left.transposed else "nt" if right.transposed else "nn"
    batch = float(prod(left.sizes[:-2]))
    rows, inner, outer = float(left.sizes[-2]), float(left.sizes[-1]), float(right.sizes[-1])
    seconds = m.kernels.matmul(layout, batch * rows, outer, inner, left.bytes)
    for matrix in (left, right):
        if matrix.scattered:
            m.moved(2.0 * matrix.num_bytes)
    if batch > 1:
        moved = left.num_bytes + right.num_bytes + batch * rows * outer * left.bytes
        seconds = np.maximum(seconds, m.kernels.moved(moved))
    m.add(part, seconds)


def mm(op: Given, m: Meter) -> None:
    product(op.inputs[0], op.inputs[1], m)


def addmm(op: Given, m: Meter) -> None:
    """A bias is added in the product's own kernel. What is as large as the result is copied first, unless that is the result already,
    and is then read and written again (ATen/native/cuda/Blas.cpp, addmm_out_cuda_impl, baddbmm_out_cuda_impl)."""
    added, left, right = op.inputs[:3]
    product(left, right, m)
    if len(added.sizes) > 1 and added.num_bytes >= op.outputs[0].num_bytes:
        again = 0.0 if op.name.endswith("_") else 2.0
        m.add(PRODUCTS, m.kernels.moved((1.0 + again) * added.num_bytes), 1.0 if again else 0.0)


def grouped(op: Given, m: Meter) -> None:
    """Of rows with as many matrices as there are experts, or of rows with rows, where a matrix for each is made."""
    left, right = op.inputs[:2]
    ends = op.inputs[2] if len(op.inputs) > 2 else None
    experts = float(ends.sizes[0]) if ends is not None else float(right.sizes[0])
    if len(right.sizes) == 3:
        rows, inner, outer = left.sizes[0], left.sizes[1], right.sizes[2]
        role = "forward" if right.transposed else "input_gradient"
        sizes = (inner, outer) if role == "forward" else (outer, inner)
    else:
        rows, role = right.sizes[0], "weight_gradient"
        sizes = (right.sizes[1], left.sizes[0]) if left.transposed else (left.sizes[0], right.sizes[1])
    m.add(PRODUCTS, m.kernels.grouped(float(rows), experts, float(sizes[0]), float(sizes[1]), role, left.bytes))


def four_bit_product(op: Given, m: Meter) -> None:
    value, made = op.inputs[0], op.outputs[0]
    rows = value.elements / value.width
    m.add(PRODUCTS, m.kernels.matmul("nt", rows, made.width, value.width, value.bytes))


def dequantize(op: Given, m: Meter) -> None:
    """As forward.dequantize: the scales first where they are quantized too."""
    shape, nested = op.given[0], bool(op.given[1])
    times = 3 if nested else 1
    m.dequantized += 1.0
    m.add(DEQUANTIZATION, m.kernels.dequantize(float(prod(shape)), nested=nested) / times, times)


def dequantize_made(op: Given, m: Meter) -> None:
    m.add(DEQUANTIZATION, m.kernels.dequantize(op.outputs[0].elements, nested=m.scenario.double_quantization))


# --- attention


def attention(op: Given, m: Meter, c: Columns) -> None:
    backward = "backward" in op.name
    tensors = [t for t in op.inputs if len(t.sizes) >= 3 and t.bytes <= FP32]
    query, key = tensors[int(backward)], tensors[int(backward) + 1]
    if len(query.sizes) == 3:
        documents(op, m, c, query, key, backward=backward)
        return
    batch, heads, rows, head = map(float, query.sizes)
    mask = next((t for t in op.inputs if t.sizes[-2:] == (query.sizes[-2], key.sizes[-2])), None)
    seconds = m.kernels.attention(
        batch, heads, float(key.sizes[1]), head, rows, masked=mask is not None, backward=backward, fused=True
    )
    m.add(ATTENTION, seconds)


def mask(op: Given, m: Meter) -> None:
    """Made of a boolean one: its kernels' seconds are in the attention's."""
    m.launches = m.launches + MASK_LAUNCHES


def documents(op: Given, m: Meter, c: Columns, query: Shape, key: Shape, *, backward: bool) -> None:
    """A trace's documents are as long as they may be; here they are as long as those of the data."""
    tokens, heads, head = map(float, query.sizes)
    row = lengths.attended(m.scenario, c)
    flash_4 = m.scenario.attention == FLASH_4
    found = m.kernels.attention(
        tokens / row, heads, float(key.sizes[1]), head, row,
        masked=False, backward=backward, fused=True, by_document=True, flash_4=flash_4,
    )  # fmt: skip
    m.add(ATTENTION, found)
