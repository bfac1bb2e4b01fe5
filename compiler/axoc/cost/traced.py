"""Seconds of one optimizer step from what a trace saw launched: the same kernels, and the same host, as the closed form's.

A trace lists each operation of a micro-step with its shapes (axoc_runtime/trace/launches.py); what each takes is asked of the same
tables, and the two clocks run side by side from one to the next. What no operation shows is the closed form's: the Trainer's
own seconds, the optimizer's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import numpy as np

from axoc.cost import lengths, stretches, walks, zero3_hooks
from axoc.cost.activations import timed_setting
from axoc.cost.columns import Columns, Floats
from axoc.cost.dispatched.operation import Given
from axoc.cost.dispatched.price import price
from axoc.cost.forward import PARAMETRIZED_OPERATIONS
from axoc.cost.kernels import kernels_of
from axoc.cost.launching import HostCosts, host_costs
from axoc.cost.meter import PARTS, Meter
from axoc.cost.scenario import Scenario
from axoc.cost.time import MicroSteps, TimeColumns, whole_step

PASS, BACK, ADAPTER, STACKED = "pass", "back", "adapter", "stacked_adapter"
MARKS: Final = frozenset({PASS, BACK, ADAPTER, STACKED})
Launches = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Clocks:
    """Seconds of a micro-step, or of several."""

    elapsed: float
    device: dict[str, float]

    def plus(self, other: Clocks, times: float = 1.0) -> Clocks:
        device = {part: self.device[part] + times * other.device[part] for part in PARTS}
        return Clocks(elapsed=self.elapsed + times * other.elapsed, device=device)


def traced_time(scenario: Scenario, c: Columns, runs: Sequence[tuple[int, Launches]]) -> TimeColumns:
    """``runs``: each depth that was run, in blocks, and what it launched: one of the full depth, or two shallower ones that are two
    periods of its pattern of blocks apart. ``c``: one row."""
    (depth, launches), period = runs[-1], (runs[-1][0] - runs[0][0]) // 2
    kinds, hooks = [_Kind.of(scenario, c, kind) for kind in launches["kinds"]], _hooks(scenario, c)
    orders = launches["micro_steps"]
    if period:
        orders = [deepened(order, kinds, period, scenario.model.num_layers - depth) for order in orders]
    run = [_Timeline(scenario, kinds, hooks).run(order) for order in orders]
    found = run[0].plus(run[-1], float(c.accumulation[0] - 1))  # all but the first, which finds no gradients, are alike
    each = np.maximum(np.full(1, found.elapsed / c.accumulation), zero3_hooks.host_seconds(scenario, c))
    kernels = {part: np.full(1, seconds) for part, seconds in found.device.items()}
    busy = cast(Floats, sum(kernels.values()))
    steps = MicroSteps(kernels=kernels, busy=busy, waits=each * c.accumulation - busy, each=each)
    return whole_step(scenario, c, steps)


def deepened(order: Sequence[int], kinds: Sequence[_Kind], period: int, more: int) -> list[int]:
    """With ``more`` blocks, a number of whole periods: those before the last one again and again."""
    turn = next(i for i, index in enumerate(order) if kinds[index].name == BACK)
    forward = _split(order[:turn], kinds, PASS)
    backward = _split(order[turn:], kinds, BACK)
    last, first = len(forward) - 1, len(forward) - 1 - period
    forward[last:last] = forward[first:last] * (more // period)
    first = 2  # nothing comes before the first mark, then the last block's
    backward[first:first] = backward[first : first + period] * (more // period)
    return [index for segment in (*forward, *backward) for index in segment]


def _split(order: Sequence[int], kinds: Sequence[_Kind], mark: str) -> list[list[int]]:
    """What comes before the first mark, then from each to the next."""
    found: list[list[int]] = [[]]
    for index in order:
        if kinds[index].name == mark:
            found.append([])
        found[-1].append(index)
    return found


def _hooks(scenario: Scenario, c: Columns) -> list[tuple[float, float]]:
    """Of each block with a checkpoint, from the first on: of the tensors that the closed form knows to be saved, by which the
    seconds of one were found."""
    s, tokens = timed_setting(scenario, c), lengths.micro_batch_tokens(scenario, c)
    costs, found = host_costs(scenario), list[tuple[float, float]]()
    for count, passes in stretches.grouped_blocks(s, kernels_of(scenario), tokens):
        found += [passes.hooks(costs)] * round(count)
    return found[: int(c.checkpointed_layers[0])]


@dataclass(frozen=True, kw_only=True)
class _Kind:
    name: str
    device: dict[str, float]
    launches: float
    triton: float
    dequantized: float
    compiled: bool

    @classmethod
    def of(cls, scenario: Scenario, c: Columns, kind: Sequence[Any]) -> _Kind:
        name, given, made, compiled = kind
        meter = Meter(scenario, kernels_of(scenario), 1)
        price(Given(name=name, given=given, made=made), meter, c)
        return cls(
            name=name,
            device={part: float(np.max(seconds)) for part, seconds in meter.seconds.items()},
            launches=float(np.max(meter.launches)),
            triton=float(np.max(meter.triton)),
            dequantized=meter.dequantized,
            compiled=compiled,
        )

    @property
    def seconds(self) -> float:
        return sum(self.device.values())

    def host(self, costs: HostCosts) -> float:
        return self.launches * costs.operation + self.triton * costs.triton + self.dequantized * costs.dequantize


class _Timeline:
    """The host launches; the device starts what was launched once it is done with what came before."""

    def __init__(self, scenario: Scenario, kinds: Sequence[_Kind], hooks: Sequence[tuple[float, float]]) -> None:
        """``hooks``: host seconds of each block's checkpoint, in its first forward and after it; none where it has no checkpoint."""
        self.kinds, self.hooks = kinds, hooks
        self.inside, self.outside = host_costs(scenario), host_costs(replace(scenario, compile=False))
        self.launched = self.inside.micro_step + walks.each_micro_step(scenario)
        self.done = 0.0
        self.adapters: list[int] = []
        """Of each block that was passed forward, layers with an adapter."""
        self.back = False

    def run(self, order: Sequence[int]) -> Clocks:
        device = dict.fromkeys(PARTS, 0.0)
        for index in order:
            kind = self.kinds[index]
            if kind.name in MARKS:
                self.launched += self._marked(kind.name)
                continue
            self._launch(kind)
            for part, seconds in kind.device.items():
                device[part] += seconds
        return Clocks(elapsed=max(self.done, self.launched), device=device)

    def _launch(self, kind: _Kind) -> None:
        """Several kernels, one after the other: as long as the mean of them, each."""
        host = kind.host(self.inside if kind.compiled else self.outside)
        several = max(kind.launches + kind.triton, 1.0)
        self.done = max(self.done, self.launched + host / several) + kind.seconds
        self.launched += host
        self.done = max(self.done, self.launched + kind.seconds / several)

    def _marked(self, name: str) -> float:
        """Host seconds of what no kernel runs for."""
        costs = self.inside
        if name in (ADAPTER, STACKED):
            if not self.back and self.adapters:
                self.adapters[-1] += 1
            return costs.adapter + (PARAMETRIZED_OPERATIONS * costs.operation if name == STACKED else 0.0)
        if name == BACK:
            self.back = True
            block = len(self.adapters) - 1
            return costs.each_pass + costs.adapter * self.adapters.pop() + self._hooks(block)[1]
        if self.back:
            return costs.each_pass
        self.adapters.append(0)
        return costs.each_pass + self._hooks(len(self.adapters) - 1)[0]

    def _hooks(self, block: int) -> tuple[float, float]:
        return self.hooks[block] if block < len(self.hooks) else (0.0, 0.0)
