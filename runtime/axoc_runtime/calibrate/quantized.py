"""Dequantization of nf4 weights by bitsandbytes, as every pass over a QLoRA layer does it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from axoc_runtime.calibrate.clock import Clock, random, rotating
from axoc_runtime.calibrate.tables import Point, Table, Value


def table(*, small: bool) -> Table:
    pairs = ((1024, 4096), (4096, 4096), (4096, 14336), (8192, 28672))
    return Table(
        name="nf4_dequantize",
        about="bitsandbytes.functional.dequantize_4bit to bf16, blocks of 64",
        keys=("double_quantization", "rows", "columns"),
        values=("seconds", "host_seconds"),
        points=[(True, 64, 64)] if small else [(d, *p) for d in (True, False) for p in pairs],
        measure=_measure,
        needs=("bitsandbytes",),
    )


def _measure(clock: Clock, point: Point) -> Sequence[Value]:
    import bitsandbytes.functional as bnb

    double, rows, columns = bool(point[0]), int(point[1]), int(point[2])

    def make() -> Any:
        return bnb.quantize_4bit(
            random(clock, rows, columns, scale=0.02), blocksize=64, compress_statistics=double, quant_type="nf4"
        )

    sets = rotating(clock, make, rows * columns * 5 // 2)
    calls = [lambda q=q, s=s: bnb.dequantize_4bit(q, s) for q, s in sets]
    return clock.seconds(calls), clock.host_seconds(calls[0])
