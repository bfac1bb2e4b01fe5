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
WEIGHT_GRADIENTS = True
"""As the runtime's: whether those are products in float8 too. Else they are of the inputs and gradients in 16 bits, which are kept."""


def product(t: Tape, s: Setting, low: Value, inner: Size, outer: Size, *, biased: bool) -> Value:
    """``low``: the input in the compute dtype. Layers that share it share its cast."""
    first, weights = not low.storage.in_float8, inner * outer
    low.storage.in_float8 = True
    t.scratch((inner * t.tokens * first + weights) * FLOAT8_BYTES)
    parameters = [_parameter(s, low, weights, biased)] if s.trained else []
    by_columns = s.trained and WEIGHT_GRADIENTS
    saves = [t.weight()] + ([low.storage] if s.trained and not WEIGHT_GRADIENTS else [])
    back = (outer * (1.0 + by_columns) + inner * by_columns) * t.tokens + weights
    sizes = (inner, outer, float(first), s.weight)
    return t.apply(
        outer, low.bytes, [low], saves=saves, parameters=parameters, scratch=back * FLOAT8_BYTES,
        folded=s.folded, kind=KIND, sizes=sizes,
    )  # fmt: skip


def _parameter(s: Setting, low: Value, weights: Size, biased: bool) -> Parameter:
    """A product of float8 writes the gradient in the weight's own dtype."""
    return s.parameter(weights, s.weight if WEIGHT_GRADIENTS else low.bytes, s.weight, biased=biased)


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
    by_columns = bool(op.parameters) and WEIGHT_GRADIENTS
    layouts = float(op.needs()) + float(by_columns)
    if layouts:
        m.moved(outer * op.tokens * (op.bytes + layouts * FLOAT8_BYTES), part=FLOAT8)
    if by_columns and first:
        m.moved(inner * op.tokens * (op.inputs[0].bytes + FLOAT8_BYTES), part=FLOAT8)
    if op.parameters:
        m.matmul("tn", outer, inner, op.tokens, FLOAT8_BYTES if WEIGHT_GRADIENTS else op.bytes)
    if op.needs():
        m.moved(inner * outer * (weight + FLOAT8_BYTES), part=FLOAT8)
        m.matmul("nn", op.tokens, inner, outer, FLOAT8_BYTES)
