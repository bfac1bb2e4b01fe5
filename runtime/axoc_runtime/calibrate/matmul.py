"""Matrix products by dtype, layout and shape: out (m x n) = a (m x k) times b (k x n).

Layouts name what is stored transposed, n for no and t for yes, as BLAS does. Of a linear layer with weight (out, in):
``nt`` is the forward (m tokens, n out, k in), ``nn`` the gradient of the input (m tokens, n in, k out), ``tn`` the
gradient of the weight (m out, n in, k tokens).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch

from axoc_runtime.calibrate import shapes
from axoc_runtime.calibrate.clock import Call, Clock, random, rotating
from axoc_runtime.calibrate.dtypes import DTYPES
from axoc_runtime.calibrate.tables import Point, Table, Value

TOKENS: Final = (1024, 2048, 8192, 16384)
FEW_TOKENS: Final = (2048, 8192)
GRID_TOKENS: Final = (128, 512, 2048, 8192, 32768)
THIN: Final = ((2048, 2048), (4096, 4096), (4096, 14336), (14336, 4096))


def roles(tokens: int, width_in: int, width_out: int) -> tuple[tuple[str, int, int, int], ...]:
    """(layout, m, n, k) of a linear layer's forward, gradient of the input, gradient of the weight."""
    return (
        ("nt", tokens, width_out, width_in),
        ("nn", tokens, width_in, width_out),
        ("tn", width_out, width_in, tokens),
    )


def table(*, small: bool) -> Table:
    return Table(
        name="matmul",
        about="torch.mm (fp8: torch._scaled_mm) by layout: nt forward, nn gradient of input, tn of weight",
        keys=("dtype", "layout", "m", "n", "k"),
        values=("seconds",),
        points=_small_points() if small else _points(),
        measure=measure,
    )


def _points() -> list[Point]:
    """The commonest first: where time runs out, the rarest are missing."""
    main = [(t, *p) for p in shapes.linears(large=False) for t in TOKENS]
    main += [(t, *p) for p in shapes.heads() for t in FEW_TOKENS]
    main += [(t, *p) for p in shapes.GRID for t in GRID_TOKENS]
    main += [(t, *p) for p in shapes.linears(large=True) for t in FEW_TOKENS]
    bf16: list[Point] = [("bf16", *role) for tokens, i, o in main for role in roles(tokens, i, o)]
    return list(dict.fromkeys(bf16 + _thin() + _other_dtypes()))


def _thin() -> list[Point]:
    """LoRA's products: into the rank and out of it."""
    pairs = [(i, r) for i, _ in THIN for r in shapes.RANKS] + [(r, o) for _, o in THIN for r in shapes.RANKS]
    sizes = [(t, *pair) for t in (1024, 4096, 16384) for pair in dict.fromkeys(pairs)]
    found: list[Point] = [("bf16", *role) for size in sizes for role in roles(*size)]
    return found


def _other_dtypes() -> list[Point]:
    pairs = ((1024, 4096), (2048, 2048), (2048, 8192), (4096, 4096), (4096, 14336))
    rows = [(t, *p) for p in pairs for t in (2048, 8192)]
    full: list[Point] = [(d, *role) for d in ("fp32", "tf32", "fp16") for t, i, o in rows for role in roles(t, i, o)]
    fp8: list[Point] = [("fp8", *roles(t, i, o)[0]) for t, i, o in rows]  # the kernel takes this layout only
    return [*full, *fp8]


def _small_points() -> list[Point]:
    return [(dtype, *role) for dtype in ("bf16", "fp32") for role in roles(64, 32, 48)]


def measure(clock: Clock, point: Point) -> Sequence[Value]:
    dtype, layout, m, n, k = point
    assert isinstance(m, int) and isinstance(n, int) and isinstance(k, int)
    torch.backends.cuda.matmul.allow_tf32 = dtype == "tf32"
    kind = DTYPES[str(dtype)]
    try:
        calls = rotating(
            clock, lambda: _call(clock, str(layout), m, n, k, kind), kind.itemsize * (m * k + k * n + m * n)
        )
        return (clock.seconds(calls),)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


def _call(clock: Clock, layout: str, m: int, n: int, k: int, dtype: torch.dtype) -> Call:
    a = random(clock, k, m, dtype=dtype).t() if layout[0] == "t" else random(clock, m, k, dtype=dtype)
    b = random(clock, n, k, dtype=dtype).t() if layout[1] == "t" else random(clock, k, n, dtype=dtype)
    if dtype.itemsize == 1:
        one = torch.ones((), device=clock.device)
        return lambda: torch._scaled_mm(a, b, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)
    out = torch.empty(m, n, device=clock.device, dtype=dtype)
    return lambda: torch.mm(a, b, out=out)
