"""Kernels bound by memory among what was dispatched: by the names they were measured under, or by their bytes."""

from __future__ import annotations

from collections.abc import Callable

from axoc.cost.dispatched.operation import Given, Shape
from axoc.cost.forward import strided_seconds
from axoc.cost.meter import CASTS, LOSS, MEMORY_BOUND, Meter


def flat(kernel: str) -> Callable[[Given, Meter], None]:
    def run(op: Given, m: Meter) -> None:
        made = op.outputs[0]
        m.pointwise(kernel, made.elements, made.bytes)

    return run


def activation(kernel: str) -> Callable[[Given, Meter], None]:
    def run(op: Given, m: Meter) -> None:
        made = op.outputs[0]
        m.add(MEMORY_BOUND, strided_seconds(m, kernel, made.elements, made.bytes, any(t.is_part for t in op.inputs)))

    return run


def along(kernel: str) -> Callable[[Given, Meter], None]:
    """Along rows of its first input."""

    def run(op: Given, m: Meter) -> None:
        value = op.inputs[0]
        m.pointwise(kernel, value.elements, value.bytes, value.width)

    return run


def loss(kernel: str) -> Callable[[Given, Meter], None]:
    def run(op: Given, m: Meter) -> None:
        value = op.inputs[0]
        m.add(LOSS, m.kernels.pointwise(kernel, value.elements, value.bytes, value.width))

    return run


def mul(op: Given, m: Meter) -> None:
    """By a number, a column, a row, or element by element."""
    made = op.outputs[0]
    factors = [t for t in op.inputs if t.elements > 1]
    if made.elements <= 1:
        m.tiny(1)
        return
    small = [t for t in factors if t.num_bytes / t.bytes < made.elements]
    if len(factors) < 2:
        m.pointwise("mul_scalar", made.elements, made.bytes)
    elif any(t.bytes != made.bytes for t in factors):
        m.moved(op.num_bytes)
    elif not small:
        m.add(MEMORY_BOUND, strided_seconds(m, "mul", made.elements, made.bytes, any(t.is_part for t in factors)))
    elif all(is_column(t) for t in small):
        m.pointwise("mul_column", made.elements, made.bytes, made.width)
    else:
        m.pointwise("mul_row", made.elements, made.bytes, made.width)


def is_column(t: Shape) -> bool:
    return bool(t.sizes) and (t.sizes[-1] == 1 or t.strides[-1] == 0)


def add(op: Given, m: Meter) -> None:
    made = op.outputs[0]
    terms = [t for t in op.inputs if t.elements > 1]
    whole = all(t.num_bytes / t.bytes >= made.elements and t.bytes == made.bytes for t in terms)
    if len(terms) < 2:
        m.pointwise("mul_scalar", made.elements, made.bytes)
    elif not whole:
        m.moved(op.num_bytes)
    else:
        kernel = "add_" if op.name.endswith("_") else "add"
        part = CASTS if kernel == "add_" else MEMORY_BOUND
        m.add(part, m.kernels.pointwise(kernel, made.elements, made.bytes))


def copied(op: Given, m: Meter) -> None:
    """To another dtype, or as it is."""
    made, source = op.outputs[0], op.inputs[-1] if op.name == "aten.copy_" else op.inputs[0]
    if source.bytes != made.bytes and {source.bytes, made.bytes} == {2.0, 4.0}:
        is_weight = len(made.sizes) == 2 and m.scenario.is_full
        m.cast(made.elements, source.bytes, CASTS if is_weight else MEMORY_BOUND)
    elif source.num_bytes / source.bytes < source.elements:
        m.moved(source.num_bytes + made.num_bytes)
    else:
        m.pointwise("copy", made.elements, made.bytes)


def zeros(op: Given, m: Meter) -> None:
    made = op.outputs[0]
    if made.elements <= 1 or made.bytes not in (2.0, 4.0):
        m.moved(made.num_bytes)
    else:
        m.pointwise("zero_", made.elements, made.bytes)


def power(op: Given, m: Meter) -> None:
    made = op.outputs[0]
    m.pointwise("pow2", made.elements, made.bytes)


def mean(op: Given, m: Meter) -> None:
    value = op.inputs[0]
    m.pointwise("mean", value.elements, value.bytes, value.width)


def summed(op: Given, m: Meter) -> None:
    """Over a row's elements, or over all rows."""
    value, made = op.inputs[0], op.outputs[0]
    if value.elements <= 1 or made.elements <= 1 or value.num_bytes < value.elements * value.bytes:
        m.moved(op.num_bytes)
        return
    columns = made.sizes and made.sizes[-1] == value.sizes[-1] and made.width > 1
    m.pointwise("sum_rows" if columns else "sum_columns", value.elements, value.bytes, value.width)


def cat(op: Given, m: Meter) -> None:
    """Of what lies in one piece, as fast as a copy (CatArrayBatchedCopy_vectorized); of halves of a head, as was measured."""
    made, parts = op.outputs[0], op.inputs
    halves = len(parts) == 2 and parts[0].sizes == parts[1].sizes and made.sizes[-1] == 2 * parts[0].sizes[-1]
    if halves and any(t.is_part for t in parts):
        m.pointwise("cat_halves", made.elements, made.bytes, made.width)
    else:
        m.pointwise("copy", made.elements, made.bytes)


def slice_backward(op: Given, m: Meter) -> None:
    """Zeros as wide as what it was cut from, and a copy into them."""
    made, gradient = op.outputs[0], op.inputs[0]
    m.moved(made.num_bytes)
    m.pointwise("copy", gradient.elements, gradient.bytes)


def dropout(op: Given, m: Meter) -> None:
    made = op.outputs[0]
    m.pointwise("dropout", made.elements, made.bytes)


def layer_norm_backward(op: Given, m: Meter) -> None:
    """As backward._layer_norm_back."""
    value = op.inputs[0]
    if len(op.outputs) > 1:
        m.pointwise("layer_norm_backward", value.elements, value.bytes, value.width)
        m.tiny(1)
    else:
        m.moved(3.0 * value.num_bytes)


def safe_softmax(op: Given, m: Meter) -> None:
    """ATen/native/transformers/attention.cpp, safe_softmax: the softmax, which scores are masked, which rows are altogether, and the
    result without those."""
    value = op.inputs[0]
    m.pointwise("softmax", value.elements, value.bytes, value.width)
    m.moved(value.elements * (value.bytes + 1.0))
    m.moved(value.elements)
    m.moved(2.0 * value.num_bytes)


def softmax_backward(op: Given, m: Meter) -> None:
    value = op.inputs[0]
    m.pointwise("softmax_backward", value.elements, value.bytes, value.width)


def embedding(op: Given, m: Meter) -> None:
    made, table = op.outputs[0], op.inputs[0]
    tokens = made.elements / made.width
    seconds = m.kernels.embedding(tokens, made.width, float(table.sizes[0]), made.bytes, backward=False)
    m.add(MEMORY_BOUND, seconds)


def embedding_backward(op: Given, m: Meter) -> None:
    made, gradient = op.outputs[0], op.inputs[0]
    tokens = gradient.elements / gradient.width
    seconds = m.kernels.embedding(tokens, made.width, float(made.sizes[0]), made.bytes, backward=True)
    m.add(MEMORY_BOUND, seconds)


def nll(op: Given, m: Meter) -> None:
    """A number a row is read."""
    m.tiny(2)


def nll_backward(op: Given, m: Meter) -> None:
    """Zeros as large as the logits, one filled in a row."""
    m.add(LOSS, m.kernels.moved(op.outputs[0].num_bytes))
    m.tiny(1)


def few(launches: float) -> Callable[[Given, Meter], None]:
    """Several kernels, of which one goes over all that is given and made."""

    def run(op: Given, m: Meter) -> None:
        m.moved(op.num_bytes)
        if launches > 1:
            m.tiny(launches - 1)

    return run


def gathered(op: Given, m: Meter) -> None:
    """Rows chosen by their numbers: as many are read as are written."""
    m.moved(2.0 * op.outputs[0].num_bytes)


def put(op: Given, m: Meter) -> None:
    """index_put, accumulating: rows sorted first, then read, added and written."""
    values = op.inputs[-1]
    m.moved(4.0 * values.num_bytes)
    m.tiny(12)


def filled(op: Given, m: Meter) -> None:
    """As forward.masked_fill: a copy, then the filling, by the row; in place without the copy."""
    made = op.outputs[0]
    if not op.name.endswith("_"):
        m.pointwise("copy", made.elements, made.bytes)
    m.pointwise("mul_column", made.elements, made.bytes)
