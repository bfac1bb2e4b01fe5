"""What a step waits for its collectives, by the order in which they are issued.

FSDP2 and ZeRO-3 gather a unit's weights while the one before computes, forward and backward, and reduce a unit's gradients
while the next computes. So a pass begins with a gather that nothing hides, ends with a reduction that nothing hides, and in
between takes the longer of computing and communicating, unit by unit; both directions share the links. DDP sums buckets while
the last backward goes on. ZeRO-1 and 2 are emitted without overlap_comm: they wait.
A collective that runs beside kernels takes multiprocessors from them.
"""

from __future__ import annotations

from typing import Final, cast

import numpy as np

from axoc.cost import flops
from axoc.cost.columns import Columns, Floats
from axoc.cost.communication import (
    copied_seconds,
    gradient_reduction_seconds,
    last_bucket_seconds,
    micro_step_seconds,
    unit,
    weight_gather_seconds,
)
from axoc.cost.scenario import Scenario

EXPOSED: Final = "exposed communication"
COPIES: Final = "copies of gathered weights and gradients"
SHARED: Final = "kernels slowed by collectives"

CHANNELS: Final = 16
"""Thread blocks of a collective, each on a multiprocessor of its own: what NCCL opens with a network of eight ports, two for
each; inside a node of NVSwitches it opens 24 (its log: "coll channels")."""
MULTIPROCESSORS: Final = {"volta": 80, "ampere": 108, "hopper": 132, "blackwell": 148}
"""Of the largest accelerator of a generation (NVIDIA's white papers); collectives over PCIe open two channels."""
PCIE_CHANNELS: Final = 2


def communication(scenario: Scenario, c: Columns, compute: Floats) -> dict[str, Floats]:
    """Seconds of a step by part. ``compute``: of a micro-step, without any of it."""
    forward, backward = _passes(scenario, c, compute)
    micro, once = _micro_step(scenario, c, forward, backward), _once(scenario, c, backward)
    total = micro_step_seconds(scenario, c) * c.accumulation + gradient_reduction_seconds(scenario, c)
    total = total + weight_gather_seconds(scenario, c)
    exposed = micro * c.accumulation + once
    out, into = copied_seconds(scenario, c)
    return {
        EXPOSED: cast(Floats, exposed),
        SHARED: np.maximum(total - exposed, 0.0) * _taken(scenario),
        COPIES: cast(Floats, (out + into) * c.accumulation),
    }


def forward_exposed(scenario: Scenario, c: Columns, compute: Floats) -> Floats:
    """Of one forward alone, as in evaluation; nothing where every rank has all weights. ``compute``: of that forward."""
    one, (out, _) = unit(scenario, c), copied_seconds(scenario, c)
    waits = one.outside_gather + one.gather + (one.count - 1) * np.maximum(0.0, one.gather - compute / one.count)
    return cast(Floats, waits + out)


def _passes(scenario: Scenario, c: Columns, compute: Floats) -> tuple[Floats, Floats]:
    """A micro-step's forward and backward, by their shares of the arithmetic: a frozen weight has no gradient."""
    back = (2.0 if scenario.is_full else 1.0) + flops.recomputed_share(scenario, c)
    return cast(Floats, compute / (1.0 + back)), cast(Floats, compute * back / (1.0 + back))


def _micro_step(scenario: Scenario, c: Columns, forward: Floats, backward: Floats) -> Floats:
    one = unit(scenario, c)
    sharded = c.uses("fsdp", "zero3")
    first = one.outside_gather + one.gather
    last = one.reduce + one.outside_reduce
    ahead = np.maximum(0.0, one.gather - forward / one.count)
    back = np.maximum(0.0, one.gather + one.reduce - backward / one.count)
    scheduled = first + last + (one.count - 1) * (ahead + back)
    return cast(Floats, np.where(sharded, scheduled, micro_step_seconds(scenario, c)))


def _once(scenario: Scenario, c: Columns, backward: Floats) -> Floats:
    """DDP's last bucket is full when the backward ends."""
    summed = gradient_reduction_seconds(scenario, c)
    last = last_bucket_seconds(scenario, c)
    hidden = last + np.maximum(0.0, summed - last - backward)
    return cast(Floats, np.where(c.uses("ddp"), hidden, summed) + weight_gather_seconds(scenario, c))


def _taken(scenario: Scenario) -> float:
    """Of the multiprocessors."""
    own = scenario.cluster.accelerator
    if scenario.on_cpu:
        return 0.0
    channels = PCIE_CHANNELS if own.link_kind == "pcie" and scenario.cluster.nodes == 1 else CHANNELS
    return channels / MULTIPROCESSORS.get(own.architecture, MULTIPROCESSORS["hopper"])
