"""Kernels that the trace names itself, as functions stand in for them: Inductor's and Liger's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from axoc.cost.dispatched.operation import Given
from axoc.cost.losses import fused_loss
from axoc.cost.meter import Meter


def triton(op: Given, m: Meter) -> None:
    m.moved(op.given[0])


def liger(kernel: str, passes: float, *, backward: bool = False) -> Callable[[Given, Meter], None]:
    def run(op: Given, m: Meter) -> None:
        value = op.inputs[0]
        name = kernel
        if kernel == "gated":
            name = "swiglu" if m.scenario.model.activation in ("silu", "swish") else "geglu"
        m.liger(name, value.elements, value.width, value.bytes, passes=passes, backward=backward)

    return run


def norm_backward(op: Given, m: Meter) -> None:
    """As backward._liger_norm_back; what sums a trained weight's gradient up is dispatched by itself."""
    value, trained = op.inputs[0], bool(op.given[1])
    if trained:
        m.liger("rms_norm", value.elements, value.width, value.bytes, passes=3.0, backward=True)
    else:
        from_python(m, 3.0 * value.num_bytes)


def from_python(m: Meter, num_bytes: float) -> None:
    """A Triton kernel, known by its bytes."""
    m.moved(num_bytes)
    m.launches, m.triton = m.launches - 1.0, m.triton + 1.0


def whole_loss(op: Given, m: Meter) -> None:
    hidden, weight = op.inputs[:2]
    trained, lowers = op.given[2:4]
    fused_loss(m, np.full(1, hidden.elements / hidden.width), trained, lowers, weight.bytes)


def rotation(op: Given, m: Meter) -> None:
    from_python(m, 2.0 * op.num_bytes)


def scaled(op: Given, m: Meter) -> None:
    """A gradient that is there already, times the loss's own."""
    from_python(m, 2.0 * op.inputs[0].num_bytes)
