"""A linear layer whose three products are computed in float8 (runtime/axoc_runtime/kernels/float8.py), in compiled blocks.

Each factor is cast once its largest value is known. Of what a fused kernel makes, that kernel finds the largest values of its
rows as well; weights are read once more for it. Nothing of an input is kept for the backward: compiled code makes it anew,
from what the operations before kept, when it casts it again (torch/_functorch/partitioners.py: a cast is fusible, and so no
product holds on to what it reads). A float8 factor lies by rows in one product and by columns in the next: it is cast twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from axoc.cost.meter import FLOAT8, Meter
from axoc.cost.operations import Operation
from axoc.cost.tape import Parameter, Size, Tape, Value

if TYPE_CHECKING:
    from axoc.cost.layers import Setting

FLOAT8_BYTES: Final = 1.0
KIND: Final = "linear_float8"


def product(t: Tape, s: Setting, low: Value, inner: Size, outer: Size, *, biased: bool) -> Value:
    """``low``: the input in the compute dtype. Layers that share it share its cast."""
    first, weights = not low.storage.in_float8, inner * outer
    low.storage.in_float8 = True
    t.scratch((inner * t.tokens * first + weights) * FLOAT8_BYTES)
    parameters = [_parameter(s, weights, biased)] if s.trained else []
    back = (outer * (1.0 + s.trained) + inner * s.trained) * t.tokens + weights
    sizes = (inner, outer, float(first), s.weight)
    return t.apply(
        outer, low.bytes, [low], saves=[t.weight()], parameters=parameters, scratch=back * FLOAT8_BYTES,
        folded=s.folded, kind=KIND, sizes=sizes,
    )  # fmt: skip


def _parameter(s: Setting, weights: Size, biased: bool) -> Parameter:
    """The product writes the gradient in the weight's own dtype."""
    return s.parameter(weights, s.weight, s.weight, biased=biased)


def forward(op: Operation, m: Meter) -> None:
    """The input's cast; the weight's, for whose largest value it is read first."""
    inner, outer, first, weight = op.sizes
    if first:
        m.moved(inner * op.tokens * (op.inputs[0].bytes + FLOAT8_BYTES), part=FLOAT8)
    m.moved(inner * outer * (2.0 * weight + FLOAT8_BYTES), 2.0, part=FLOAT8)
    m.matmul("nt", op.tokens, outer, inner, FLOAT8_BYTES)


def backward(op: Operation, m: Meter) -> None:
    """The gradient's cast, by rows for the input's gradient and by columns for the weight's; the other factor's by columns."""
    inner, outer, first, weight = op.sizes
    layouts = float(op.needs()) + float(bool(op.parameters))
    if layouts:
        m.moved(outer * op.tokens * (op.bytes + layouts * FLOAT8_BYTES), part=FLOAT8)
    if op.parameters:
        if first:
            m.moved(inner * op.tokens * (op.inputs[0].bytes + FLOAT8_BYTES), part=FLOAT8)
        m.matmul("tn", outer, inner, op.tokens, FLOAT8_BYTES)
    if op.needs():
        m.moved(inner * outer * (weight + FLOAT8_BYTES), part=FLOAT8)
        m.matmul("nn", op.tokens, inner, outer, FLOAT8_BYTES)
