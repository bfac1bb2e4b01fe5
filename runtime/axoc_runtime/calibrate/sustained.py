"""How far the clock falls under load: one large product for seconds, as 100-millisecond means."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from axoc_runtime.calibrate.clock import Clock, now, random
from axoc_runtime.calibrate.tables import Point, Table, Value


def table(*, small: bool) -> Table:
    return Table(
        name="sustained",
        about="bf16 torch.mm of size x size x size again and again: seconds of one at first and at the end of the run",
        keys=("size", "run_seconds"),
        values=("first_seconds", "last_seconds"),
        points=[(64, 0.05)] if small else [(8192, 3.0)],
        measure=_measure,
    )


def _measure(clock: Clock, point: Point) -> Sequence[Value]:
    size, whole = int(point[0]), float(point[1])
    a, b = random(clock, size, size), random(clock, size, size)
    out = torch.empty_like(a)
    found, began = [], now()
    while now() - began < whole:
        clock.synchronize()
        start, count = now(), 0
        while now() - start < whole / 30 or count == 0:
            for _ in range(8):
                torch.mm(a, b, out=out)
            clock.synchronize()
            count += 8
        found.append((now() - start) / count)
    return found[0], found[-1]
