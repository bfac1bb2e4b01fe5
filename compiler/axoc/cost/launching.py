"""Host seconds: what launching a step's kernels takes, which bounds small batches.

An eager operation costs the host as much whatever its size. A profile says how much (tables ``host_launches``,
``host_trainer``, ``optimizer``); without one, a cloud host's usual time stands in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from axoc.cost.kernels import pace_of, profile_of
from axoc.cost.scenario import Scenario
from axoc.facts.profile import Profile

EAGER_SECONDS: Final = 30e-6
"""One eager operation through Python, autograd and autocast on a cloud host (a tenth of it is the launch itself)."""
CPU_EAGER_SECONDS: Final = 8e-6
"""On a CPU, where no launch is waited for and operations are their kernels."""
COMPILED_SHARE: Final = 0.25
"""Of an eager model's host time that a compiled one's graphs take: no autograd and no dispatcher, only launches."""


@dataclass(frozen=True, kw_only=True)
class HostCosts:
    """Seconds."""

    operation: float
    """Of one eager operation."""
    triton: float
    """Of one of Liger's kernels, launched from Python."""
    each_pass: float
    """Of a block's forward, its second forward, or its backward, beyond its operations: modules' Python, hooks."""
    checkpoint: float
    """Of a checkpointed block, forward and backward together: saved hooks, and states of random generators."""
    dequantize: float
    """Of a product with a bitsandbytes weight, beyond its kernels."""
    adapter: float
    """Of the forward of a layer with an adapter, beyond its operations: PEFT's own Python."""
    micro_step: float
    """The Trainer's, while the device is idle."""
    step: float


def host_costs(scenario: Scenario) -> HostCosts:
    share = COMPILED_SHARE if scenario.compile else 1.0
    profile, pace = profile_of(scenario), pace_of(scenario).host
    if profile is None or "host_launches" not in profile.tables:
        return _typical((CPU_EAGER_SECONDS if scenario.on_cpu else EAGER_SECONDS) * share * pace)
    found = {name: seconds * pace for name, seconds in profile.tables["host_launches"].rows}
    micro, step = _trainer(profile)
    return HostCosts(
        operation=found["operation"] * share,
        triton=found["triton"] * share,
        each_pass=found["pass"] * share,
        checkpoint=found["checkpoint"],
        dequantize=found["dequantize"],
        adapter=found["adapter"],
        micro_step=micro * pace,
        step=step * pace,
    )


def _typical(operation: float) -> HostCosts:
    """Of a machine that was not measured, by the seconds of an operation."""
    return HostCosts(
        operation=operation,
        triton=10 * operation,
        each_pass=10 * operation,
        checkpoint=30 * operation,
        dequantize=operation,
        adapter=4 * operation,
        micro_step=20 * operation,
        step=20 * operation,
    )


def _trainer(profile: Profile) -> tuple[float, float]:
    """(each micro-step, each step): two runs of one depth that differ in their accumulation."""
    table = profile.tables["host_trainer"]
    extra = {(row[0], row[1]): row[2] - row[3] for row in table.rows}
    (one, several), depth = sorted({a for layers, a in extra if layers == 2}), 2
    micro = (extra[depth, several] - extra[depth, one]) / (several - one)
    return max(micro, 0.0), max(extra[depth, one] - micro, 0.0)


def optimizer_host_seconds(scenario: Scenario, name: str, tensors: float) -> float:
    """Launching it, tensor by tensor: of the smallest tensors measured, whose kernels take nothing."""
    profile, pace = profile_of(scenario), pace_of(scenario).host
    dtype = "fp32" if scenario.trainable_bytes == 4 else "bf16"
    table = profile.tables.get("optimizer") if profile is not None else None
    rows = table.where(name=name, dtype=dtype).rows if table is not None else ()
    if not rows:
        return 0.1 * tensors * EAGER_SECONDS * pace  # multi-tensor kernels take dozens at a time
    _, count, host = min((row[2] * row[3], float(row[2]), float(row[5])) for row in rows)
    return host * max(tensors / count, 0.1) * pace
