"""The optimizer's step and the clipping of gradients: device seconds by number and size of tensors, and host seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch

from axoc_runtime.calibrate.clock import Clock, CpuClock, random
from axoc_runtime.calibrate.dtypes import DTYPES
from axoc_runtime.calibrate.tables import Point, Table, Value

Parameters = list[torch.Tensor]
CASES: Final = ((146, 1 << 18), (16, 1 << 26))
"""(tensors, elements of each): a small model's, bound by launches, and large matrices alone, bound by memory."""


def table(*, small: bool) -> Table:
    points = [(name, d, *c) for name in MADE for d in ("fp32", "bf16") for c in CASES]
    return Table(
        name="optimizer",
        about="one optimizer step (names as TrainingArguments.optim), and grad_norm: clip_grad_norm_",
        keys=("name", "dtype", "tensors", "elements"),
        values=("seconds", "host_seconds"),
        points=[(name, "fp32", 2, 8192) for name in MADE] if small else points,
        measure=_measure,
    )


def host_table(*, small: bool) -> Table:
    """What offloading pays: AdamW in host memory, all cores."""
    return Table(
        name="optimizer_on_host",
        about="torch's fused AdamW on the CPU, fp32: what an offloaded optimizer costs at best",
        keys=("elements",),
        values=("seconds",),
        points=[(1 << 10,)] if small else [(1 << 24,), (1 << 26,)],
        measure=_measure_on_host,
    )


def _measure(clock: Clock, point: Point) -> Sequence[Value]:
    name, dtype, tensors, elements = point
    parameters = [
        random(clock, max(int(elements) // 1024, 1), min(int(elements), 1024), dtype=DTYPES[str(dtype)], scale=0.02)
        for _ in range(int(tensors))
    ]
    for p in parameters:
        p.requires_grad_()
        p.grad = torch.randn_like(p).mul_(1e-3)
    step = MADE[str(name)](parameters)
    return clock.seconds([step]), clock.host_seconds(step)


def _measure_on_host(clock: Clock, point: Point) -> Sequence[Value]:
    parameter = torch.randn(int(point[0])).requires_grad_()
    parameter.grad = torch.randn(int(point[0]))
    return (CpuClock().seconds([torch.optim.AdamW([parameter], lr=1e-5, fused=True).step]),)


def _clip(parameters: Parameters) -> Callable[[], object]:
    return lambda: torch.nn.utils.clip_grad_norm_(parameters, 1e9)


def _bnb(parameters: Parameters) -> Callable[[], object]:
    import bitsandbytes

    step: Callable[[], object] = bitsandbytes.optim.AdamW8bit(parameters, lr=1e-5).step
    return step


def _adafactor(parameters: Parameters) -> Callable[[], object]:
    """As the Trainer sets it: no relative step, no scaling by the parameter."""
    from transformers.optimization import Adafactor

    made: Any = Adafactor(parameters, lr=1e-5, scale_parameter=False, relative_step=False)
    step: Callable[[], object] = made.step
    return step


MADE: Final[dict[str, Callable[[Parameters], Callable[[], object]]]] = {
    "adamw_torch_fused": lambda p: torch.optim.AdamW(p, lr=1e-5, fused=True).step,
    "adamw_torch": lambda p: torch.optim.AdamW(p, lr=1e-5, foreach=True).step,
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-5, foreach=True).step,
    "adamw_bnb_8bit": _bnb,
    "adafactor": _adafactor,
    "grad_norm": _clip,
}
