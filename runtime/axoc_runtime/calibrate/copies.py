"""Copies between host and device, and the host memory's own."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from axoc_runtime.calibrate.clock import Clock
from axoc_runtime.calibrate.tables import Point, Table, Value


def table(*, small: bool) -> Table:
    sizes = (1 << 12,) if small else (1 << 12, 1 << 16, 1 << 20, 1 << 24, 1 << 28)
    return Table(
        name="copies",
        about="copies between host and device memory by direction, pinned or pageable",
        keys=("direction", "pinned", "bytes"),
        values=("seconds",),
        points=[(d, pinned, n) for d in ("to_device", "to_host") for pinned in (True, False) for n in sizes],
        measure=_measure,
    )


def _measure(clock: Clock, point: Point) -> Sequence[Value]:
    direction, pinned, num_bytes = str(point[0]), bool(point[1]), int(point[2])
    pin = pinned and clock.device.type == "cuda"
    host = torch.empty(num_bytes, dtype=torch.uint8, pin_memory=pin).fill_(1)
    device = torch.ones(num_bytes, dtype=torch.uint8, device=clock.device)
    source, target = (host, device) if direction == "to_device" else (device, host)
    return (clock.seconds([lambda: target.copy_(source, non_blocking=pin)]),)
