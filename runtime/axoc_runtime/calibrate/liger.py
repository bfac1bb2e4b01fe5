"""Liger's Triton kernels of a block: norm, gated MLP, rotary embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch

from axoc_runtime.calibrate.attention import _both_ways
from axoc_runtime.calibrate.clock import Clock, random, rotating
from axoc_runtime.calibrate.tables import Point, Table, Value

WIDTHS: Final = {"rms_norm": (2048, 4096), "swiglu": (8192, 14336), "geglu": (9216,), "rope": (2048,)}
"""Few, for Triton compiles each kernel anew for each width."""


def table(*, small: bool) -> Table:
    points = [(k, t, w) for k, widths in WIDTHS.items() for w in widths for t in (2048, 8192)]
    return Table(
        name="liger",
        about="Liger's kernels on (tokens, width) in bf16; rope: heads of 64, a quarter as many for keys",
        keys=("kernel", "tokens", "width"),
        values=("forward_seconds", "backward_seconds"),
        points=[] if small else points,
        measure=_measure,
        needs=("liger_kernel",),
    )


def _measure(clock: Clock, point: Point) -> Sequence[Value]:
    kernel, tokens, width = str(point[0]), int(point[1]), int(point[2])
    if kernel == "rope":
        return _rope(clock, tokens, width)
    if kernel == "rms_norm":
        from liger_kernel.ops.rms_norm import LigerRMSNormFunction as Function  # type: ignore[import-not-found]

        def make() -> tuple[torch.Tensor, ...]:
            return random(clock, 1, tokens, width).requires_grad_(), random(clock, width).requires_grad_()

        # in_place off: the backward is asked many times, and would write over what it reads
        def run(x: torch.Tensor, w: torch.Tensor) -> Any:
            return Function.apply(x, w, 1e-6, 0.0, "llama", False)

        return _both_ways(clock, make, run, 2 * tokens * width)
    function = _gated(kernel)

    def pair() -> tuple[torch.Tensor, ...]:
        return tuple(random(clock, 1, tokens, width).requires_grad_() for _ in range(2))

    return _both_ways(clock, pair, function.apply, 4 * tokens * width)


def _gated(kernel: str) -> Any:
    if kernel == "swiglu":
        from liger_kernel.ops.swiglu import LigerSiLUMulFunction  # type: ignore[import-not-found]

        return LigerSiLUMulFunction
    from liger_kernel.ops.geglu import LigerGELUMulFunction  # type: ignore[import-not-found]

    return LigerGELUMulFunction


def _rope(clock: Clock, tokens: int, width: int) -> tuple[float, float]:
    """In place, as the kernels work: turning a vector again and again leaves its length."""
    from liger_kernel.ops.rope import rope_backward, rope_forward  # type: ignore[import-not-found]

    heads = width // 64
    cos, sin = (random(clock, 1, tokens, 64) for _ in range(2))
    sets = rotating(
        clock,
        lambda: [random(clock, 1, tokens, h, 64).transpose(1, 2) for h in (heads, max(heads // 4, 1))],
        2 * tokens * width,
    )
    calls = [[lambda s=s, f=f: f(*s, cos, sin) for s in sets] for f in (rope_forward, rope_backward)]
    return clock.seconds(calls[0]), clock.seconds(calls[1])
