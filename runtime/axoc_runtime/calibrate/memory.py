"""Driver-used bytes that torch's allocator does not see: the context, its kernels, a communicator's buffers."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from axoc_runtime.calibrate.clock import Clock
from axoc_runtime.calibrate.tables import Point, Table, Value


def table(*, small: bool) -> Table:
    return Table(
        name="memory",
        about="bytes the driver reports as used beyond those torch reserved (nothing else may run on the device)",
        keys=("when",),
        values=("bytes",),
        points=[("start",)],
        measure=_measure,
    )


def end_table(*, small: bool) -> Table:
    """The same once every kernel of the calibration has been loaded."""
    return Table(
        name="memory_at_end",
        about="the same after the kernels of all tables were loaded",
        keys=("when",),
        values=("bytes",),
        points=[("end",)],
        measure=_measure,
    )


def _measure(clock: Clock, point: Point) -> Sequence[Value]:
    if clock.device.type != "cuda":
        raise NotImplementedError("no driver to ask")
    torch.ones(1, device=clock.device)
    clock.synchronize()
    free, total = torch.cuda.mem_get_info(clock.device)
    return (total - free - torch.cuda.memory_reserved(clock.device),)
