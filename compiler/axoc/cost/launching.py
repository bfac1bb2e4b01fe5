"""Host seconds: what launching a step's kernels takes, which bounds small batches.

An eager operation costs the host as much whatever its size. A profile says how much (tables ``host_launches``,
``host_trainer``, ``optimizer``); without one, a cloud host's usual time stands in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from axoc.cost.kernels import pace_of, profile_of
from axoc.cost.modules import modules
from axoc.cost.scenario import Scenario
from axoc.facts.profile import Profile

EAGER_SECONDS: Final = 20e-6
"""One eager operation through Python, autograd and autocast on a cloud host (a fifth of it is the launch itself): the mean of
three (table host_launches of the H100's profile, where one takes 14 and another 26)."""
CPU_EAGER_SECONDS: Final = 8e-6
"""On a CPU, where no launch is waited for and operations are their kernels."""
COMPILED_SHARE: Final = 0.4
"""Of an eager operation's host time that one of a compiled block's kernels takes: no autograd and no dispatcher, only Inductor's
Python around its launch."""
COMPILED_PASS: Final = 2.1
COMPILED_MODULE: Final = 0.022
"""Of what a block's pass takes of the host where it is eager: a compiled one's, and more of it for each module. Dynamo looks whether
what it was compiled for still holds (guards on each module's state and parameters), AOTAutograd wraps and unwraps what goes in
and out. The mean of two measurements that differ by 1.7 (rows/h100-kernel-times.jsonl.xz): small blocks without and with adapters among
its pieces, and packed-1, both taken to a host of the mean pace."""
UNEVEN_PASS: Final = 4.9
"""The same, more of it where batches are of ever other lengths: Dynamo makes their length a symbol and keeps several programs, and
Inductor's Python works out sizes, strides and grids at each launch. A forward and a backward take 92 and 126 ms where the same
sixteen blocks, packed to one length, take 36 and 42 on the same host (rows/h100-kernel-times.jsonl.xz, unpacked and packed-1); those are
taken for 23 on a host of the mean pace, where it is 2.5 ms more for each pass. No multiple of the modules' guards: that was 79% too slow
for the sweep's row with adapters, and this is 33%."""


@dataclass(frozen=True, kw_only=True)
class HostCosts:
    """Seconds."""

    operation: float
    """Of one eager operation."""
    triton: float
    """Of one of Liger's kernels, launched from Python."""
    each_pass: float
    """Of a block's forward, its second forward, or its backward, beyond its operations: modules' Python, hooks."""
    saved: float
    """Of a tensor that a checkpointed block saves: torch hands it to a hook in Python in the first forward, another in the second,
    and a third in the backward (torch/utils/checkpoint.py, _checkpoint_hook and _recomputation_hook)."""
    dequantize: float
    """Of a product with a bitsandbytes weight, beyond its kernels."""
    adapter: float
    """Of the forward of a layer with an adapter, beyond its operations, and of its backward: PEFT's own Python, and autograd's nodes."""
    walk: float
    """Of one module, whenever something goes through all of the model's (walks.py)."""
    micro_step: float
    """The Trainer's, while the device is idle."""
    step: float


def host_costs(scenario: Scenario) -> HostCosts:
    share = COMPILED_SHARE if scenario.compile else 1.0
    profile, pace = profile_of(scenario), pace_of(scenario).host
    if profile is None or "host_launches" not in profile.tables:
        return _typical(scenario, (CPU_EAGER_SECONDS if scenario.on_cpu else EAGER_SECONDS) * pace)
    found = {name: seconds * pace for name, seconds in profile.tables["host_launches"].rows}
    micro, step = _trainer(profile)
    return HostCosts(
        operation=found["operation"] * share,
        triton=found["triton"] * share,
        each_pass=found["pass"] * pass_share(scenario),
        saved=found["saved"],
        dequantize=found["dequantize"],
        adapter=found["adapter"],
        walk=found["walk"],
        micro_step=micro * pace,
        step=step * pace,
    )


def pass_share(scenario: Scenario) -> float:
    """Of an eager block's pass."""
    if not scenario.compile:
        return 1.0
    share = COMPILED_PASS + COMPILED_MODULE * modules(scenario) / scenario.model.num_layers
    return share + UNEVEN_PASS if has_uneven_lengths(scenario) else share


def has_uneven_lengths(scenario: Scenario) -> bool:
    """Each batch is as long as its longest row."""
    return scenario.lengths is not None and not scenario.packing


def _typical(scenario: Scenario, operation: float) -> HostCosts:
    """Of a machine that was not measured, by the seconds of an operation: in the proportions of those that were."""
    share = COMPILED_SHARE if scenario.compile else 1.0
    return HostCosts(
        operation=operation * share,
        triton=8.5 * operation * share,
        each_pass=26 * operation * pass_share(scenario),
        saved=3 * operation,
        dequantize=6.5 * operation,
        adapter=3 * operation,
        walk=operation / 9,
        micro_step=130 * operation,
        step=25 * operation,
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
