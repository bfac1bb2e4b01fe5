"""Kernels bound by memory: element by element, along rows, and between layouts, by size and width.

``cold_seconds`` reads from memory, ``warm_seconds`` from the last cache as far as it holds the tensors, as a kernel does
that follows the one which wrote them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812

from axoc_runtime.calibrate.clock import Call, Clock, random, rotating
from axoc_runtime.calibrate.dtypes import DTYPES
from axoc_runtime.calibrate.tables import Point, Table, Value

Tensors = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Kernel:
    """``run`` of the inputs; ``moved`` is what an element of (rows, width) reads and writes, in bytes, for bf16 and fp32."""

    run: Callable[..., object]
    inputs: int
    """Tensors of (rows, width)."""
    extra: Callable[[Clock, int, int, torch.dtype], Tensors] = lambda clock, rows, width, dtype: ()
    """More inputs: a row, a column."""


def _row(clock: Clock, rows: int, width: int, dtype: torch.dtype) -> Tensors:
    return (random(clock, width, dtype=dtype),)


def _column(clock: Clock, rows: int, width: int, dtype: torch.dtype) -> Tensors:
    return (random(clock, rows, 1, dtype=dtype),)


def _norm_state(clock: Clock, rows: int, width: int, dtype: torch.dtype) -> Tensors:
    """Mean and reciprocal deviation of each row (fp32 on GPUs, whatever the input), and the weight."""
    kind = dtype if clock.device.type == "cpu" else torch.float32
    mean, deviation = (random(clock, rows, 1, dtype=kind) for _ in range(2))
    return mean, deviation, random(clock, width, dtype=dtype)


def _other(dtype: torch.dtype) -> torch.dtype:
    return torch.bfloat16 if dtype == torch.float32 else torch.float32


def _scalar(value: float) -> Callable[[Clock, int, int, torch.dtype], Tensors]:
    return lambda clock, rows, width, dtype: (torch.full((), value, device=clock.device),)


aten = torch.ops.aten
ELEMENTWISE: Final[dict[str, Kernel]] = {
    "copy": Kernel(torch.clone, 1),
    "cast": Kernel(lambda x: x.to(_other(x.dtype)), 1),  # bf16 to fp32, fp32 to bf16
    "add": Kernel(torch.add, 2),
    "add_": Kernel(lambda x, y: x.add_(y), 2),  # gradients summed in place
    "mul": Kernel(torch.mul, 2),
    "mul_scalar": Kernel(lambda x: x * 0.5, 1),
    "mul_tensor_scalar_": Kernel(lambda x, s: x.mul_(s), 1, _scalar(1.0)),  # clipping
    "neg": Kernel(torch.neg, 1),
    "pow2": Kernel(lambda x: x.pow(2), 1),
    "silu": Kernel(F.silu, 1),
    "silu_backward": Kernel(aten.silu_backward, 2),
    "gelu": Kernel(F.gelu, 1),
    "gelu_tanh": Kernel(lambda x: F.gelu(x, approximate="tanh"), 1),
    "gelu_tanh_backward": Kernel(lambda g, x: aten.gelu_backward(g, x, approximate="tanh"), 2),
    "tanh": Kernel(torch.tanh, 1),
    "tanh_backward": Kernel(aten.tanh_backward, 2),
    "where": Kernel(lambda x, y: torch.where(x > 0, x, y), 2),
    "dropout": Kernel(lambda x: torch.native_dropout(x, 0.1, True), 1),
    "zero_": Kernel(lambda x: x.zero_(), 1),
}
"""Two kernels in one entry (where) are counted as the two they are by whoever reads the table."""
ALONG_ROWS: Final[dict[str, Kernel]] = {
    "mul_column": Kernel(torch.mul, 1, _column),  # a norm's x * rsqrt(...)
    "mul_row": Kernel(torch.mul, 1, _row),  # a norm's weight
    "mean": Kernel(lambda x: x.mean(-1, keepdim=True), 1),
    "sum_rows": Kernel(lambda x: x.sum(0), 1),  # gradient of a norm's weight, of a bias
    "sum_columns": Kernel(lambda x: x.sum(-1, keepdim=True), 1),  # gradient of what was broadcast along a row
    "softmax": Kernel(lambda x: x.softmax(-1), 1),
    "softmax_backward": Kernel(lambda g, y: aten._softmax_backward_data(g, y, -1, y.dtype), 2),
    "log_softmax": Kernel(lambda x: x.log_softmax(-1), 1),
    "log_softmax_backward": Kernel(lambda g, y: aten._log_softmax_backward_data(g, y, -1, y.dtype), 2),
    "cat_halves": Kernel(lambda x: torch.cat((x[..., x.shape[-1] // 2 :], x[..., : x.shape[-1] // 2]), -1), 1),
    "add_bias": Kernel(torch.add, 1, _row),
    "layer_norm": Kernel(lambda x, w: F.layer_norm(x, w.shape, w, w), 1, _row),
    "layer_norm_backward": Kernel(
        lambda g, x, m, d, w: aten.native_layer_norm_backward(g, x, w.shape, m, d, w, w, (True, True, True)),
        2,
        _norm_state,
    ),
    "rms_norm": Kernel(lambda x, w: F.rms_norm(x, w.shape, w, 1e-6), 1, _row),
    "transpose_heads": Kernel(lambda x: x.view(-1, 16, x.shape[-1]).transpose(0, 1).contiguous(), 1),
    "repeat_rows": Kernel(lambda x: x[:, None, :].expand(-1, 4, -1).reshape(-1, x.shape[-1]), 1),  # repeat_kv
}
KERNELS: Final = ELEMENTWISE | ALONG_ROWS
ELEMENTS: Final = (1 << 12, 1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 27)
WIDTHS: Final = (128, 2048, 8192, 131072)
ROW_ELEMENTS: Final = (1 << 18, 1 << 22, 1 << 24, 1 << 26)


def table(*, small: bool) -> Table:
    return Table(
        name="pointwise",
        about="memory-bound kernels of torch on (rows, width): cold from memory, warm from the last cache",
        keys=("kernel", "dtype", "rows", "width"),
        values=("cold_seconds", "warm_seconds"),
        points=_points((1 << 10,), (64,), (1 << 10,)) if small else _points(ELEMENTS, WIDTHS, ROW_ELEMENTS),
        measure=measure,
    )


def _points(elements: tuple[int, ...], widths: tuple[int, ...], row_elements: tuple[int, ...]) -> list[Point]:
    flat = [(k, d, max(n // 2048, 1), min(n, 2048)) for k in ELEMENTWISE for d in ("bf16", "fp32") for n in elements]
    along = [
        (k, d, max(n // w, 1), w)
        for k in ALONG_ROWS
        for d in ("bf16", "fp32")
        for w in widths
        for n in row_elements
        if n >= 2 * w and (n // w) % 16 == 0
    ]
    return [*flat, *along]


def measure(clock: Clock, point: Point) -> Sequence[Value]:
    name, dtype, rows, width = point
    assert isinstance(rows, int) and isinstance(width, int)
    kernel, kind = KERNELS[str(name)], DTYPES[str(dtype)]

    def make() -> Call:
        inputs = (*(random(clock, rows, width, dtype=kind) for _ in range(kernel.inputs)),)
        inputs += kernel.extra(clock, rows, width, kind)
        return lambda: kernel.run(*inputs)

    with torch.no_grad():
        calls = rotating(clock, make, kernel.inputs * rows * width * kind.itemsize)
        return clock.seconds(calls), clock.seconds(calls[:1])


def gather_table(*, small: bool) -> Table:
    """Embeddings: a lookup, and a backward that clears and fills the whole table."""
    cases = [(t, w, v) for t in (2048, 8192) for w, v in ((896, 151936), (2048, 32000), (2048, 128256), (4096, 128256))]
    return Table(
        name="embedding",
        about="embedding lookup and its dense backward (which fills the whole table), random tokens",
        keys=("dtype", "tokens", "width", "vocabulary"),
        values=("forward_seconds", "backward_seconds"),
        points=[("bf16", 32, 16, 64)] if small else [(d, *c) for d in ("bf16", "fp32") for c in cases],
        measure=_measure_embedding,
    )


def _measure_embedding(clock: Clock, point: Point) -> Sequence[Value]:
    dtype, tokens, width, vocabulary = point
    assert isinstance(tokens, int) and isinstance(width, int) and isinstance(vocabulary, int)
    kind = DTYPES[str(dtype)]

    def make() -> tuple[Any, ...]:
        chosen = torch.randint(vocabulary, (tokens,), device=clock.device)
        return random(clock, vocabulary, width, dtype=kind), chosen, random(clock, tokens, width, dtype=kind)

    sets = rotating(clock, make, tokens * width * kind.itemsize)[:4]
    forward: list[Call] = [lambda w=w, i=i: F.embedding(i, w) for w, i, _ in sets]  # type: ignore[misc]
    backward: list[Call] = [
        lambda i=i, g=g: aten.embedding_dense_backward(g, i, vocabulary, -1, False)  # type: ignore[misc]
        for _, i, g in sets
    ]
    return clock.seconds(forward), clock.seconds(backward)
