"""Grouped products of a mixture of experts (torch's grouped_mm, which transformers uses), and moving tokens to experts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch

from axoc_runtime.calibrate.clock import Clock, random, rotating
from axoc_runtime.calibrate.tables import Point, Table, Value

SHAPES: Final = ((8, 4096, 28672), (8, 14336, 4096), (128, 2048, 1536), (128, 768, 2048), (64, 2048, 2816))
"""(experts, in, out): Mixtral 8x7B's two, Qwen3 30B-A3B's two, DeepSeek V2 Lite's first."""
ROWS: Final = (4096, 16384, 32768)


def table(*, small: bool) -> Table:
    return Table(
        name="grouped_matmul",
        about="torch.nn.functional.grouped_mm in bf16, rows spread evenly, weight (experts, out, in) transposed",
        keys=("rows", "experts", "in", "out"),
        values=("forward_seconds", "input_gradient_seconds", "weight_gradient_seconds"),
        points=[(64, 4, 32, 32)] if small else [(r, *s) for s in SHAPES for r in ROWS],
        measure=_measure,
    )


def moves_table(*, small: bool) -> Table:
    cases = [(tokens, chosen, width) for tokens in (2048, 8192) for chosen, width in ((2, 4096), (8, 2048))]
    return Table(
        name="expert_moves",
        about="rows gathered for their experts (index) and their gradient (index_put, accumulating), bf16",
        keys=("tokens", "experts_per_token", "width"),
        values=("gather_seconds", "scatter_seconds"),
        points=[(32, 2, 16)] if small else cases,
        measure=_measure_moves,
    )


def _measure(clock: Clock, point: Point) -> Sequence[Value]:
    rows, experts, width_in, width_out = (int(v) for v in point)
    grouped = getattr(torch.nn.functional, "grouped_mm", None) or torch._grouped_mm
    ends = torch.arange(1, experts + 1, device=clock.device, dtype=torch.int32) * (rows // experts)
    weight = random(clock, experts, width_out, width_in, scale=0.02)
    inputs = rotating(clock, lambda: random(clock, rows, width_in), 2 * rows * width_in)
    grads = rotating(clock, lambda: random(clock, rows, width_out), 2 * rows * width_out)
    forward = [lambda x=x: grouped(x, weight.transpose(-2, -1), offs=ends) for x in inputs]
    by_input = [lambda g=g: grouped(g, weight, offs=ends) for g in grads]
    by_weight = [lambda g=g, x=x: grouped(g.t(), x, offs=ends) for g, x in zip(grads, inputs, strict=False)]
    return clock.seconds(forward), clock.seconds(by_input), clock.seconds(by_weight)


def _measure_moves(clock: Clock, point: Point) -> Sequence[Value]:
    tokens, chosen, width = (int(v) for v in point)
    where = torch.randperm(tokens * chosen, device=clock.device) // chosen
    sets = rotating(clock, lambda: random(clock, tokens, width), 2 * tokens * width * chosen)
    back = [(torch.zeros_like(x), x[where].clone()) for x in sets]
    gather = [lambda x=x: x[where] for x in sets]
    scatter = [lambda z=z, g=g: z.index_put_((where,), g, accumulate=True) for z, g in back]
    return clock.seconds(gather), clock.seconds(scatter)
