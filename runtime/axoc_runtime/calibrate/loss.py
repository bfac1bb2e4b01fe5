"""The loss over whole logits as transformers computes it, and Liger's fused head and loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812

from axoc_runtime.calibrate.clock import Call, Clock, random
from axoc_runtime.calibrate.tables import Point, Table, Value

SIZES: Final = ((2048, 32000), (8192, 32000), (2048, 128256), (8192, 128256), (16384, 128256), (8192, 262144))


def table(*, small: bool) -> Table:
    return Table(
        name="loss",
        about="bf16 logits, upcast to fp32, cross entropy summed and divided, as ForCausalLMLoss; backward to bf16 logits",
        keys=("tokens", "vocabulary"),
        values=("forward_seconds", "backward_seconds"),
        points=[(32, 128)] if small else SIZES,
        measure=_measure,
    )


def liger_table(*, small: bool) -> Table:
    sizes = [(t, h, v) for t in (2048, 8192) for h, v in ((896, 151936), (2048, 128256), (4096, 32000))]
    return Table(
        name="liger_loss",
        about="Liger's fused linear cross entropy, bf16: its forward computes the gradients, its backward scales them",
        keys=("tokens", "hidden", "vocabulary", "trains_head"),
        values=("forward_seconds", "backward_seconds"),
        points=[] if small else [(*s, trained) for s in sizes for trained in (True, False)],
        measure=_measure_liger,
        needs=("liger_kernel",),
    )


def _measure(clock: Clock, point: Point) -> Sequence[Value]:
    tokens, vocabulary = (int(v) for v in point)
    logits = random(clock, tokens, vocabulary).requires_grad_()
    labels = torch.randint(vocabulary, (tokens,), device=clock.device)

    def forward() -> torch.Tensor:
        return F.cross_entropy(logits.float(), labels, reduction="sum") / tokens

    return _both_ways(clock, forward, [logits])


def _both_ways(clock: Clock, forward: Any, inputs: list[torch.Tensor]) -> tuple[float, float]:
    first = clock.seconds([forward])
    loss = forward()
    backward: Call = lambda: torch.autograd.grad(loss, inputs, retain_graph=True)  # noqa: E731
    return first, clock.seconds([backward])


def _measure_liger(clock: Clock, point: Point) -> Sequence[Value]:
    from liger_kernel.ops.fused_linear_cross_entropy import (  # type: ignore[import-not-found]
        LigerFusedLinearCrossEntropyFunction,
    )

    tokens, hidden, vocabulary = (int(v) for v in point[:3])
    states = random(clock, tokens, hidden).requires_grad_()
    weight = random(clock, vocabulary, hidden, scale=0.02).requires_grad_(bool(point[3]))
    labels = torch.randint(vocabulary, (tokens,), device=clock.device)

    def forward() -> torch.Tensor:
        found: Any = LigerFusedLinearCrossEntropyFunction.apply(states, weight, labels)
        loss: torch.Tensor = found[0] if isinstance(found, tuple) else found
        return loss

    # the backward scales the gradients in place: where it is asked twice it scales twice, which costs the same
    return _both_ways(clock, forward, [states, weight] if point[3] else [states])
