"""Seconds of one optimizer step, by part: the model's kernels one after the other, and the host that launches them.

Host and device run side by side. The device starts an operation once it has been launched and the one before is done; so
a stretch of them ends at the largest, over all points in it, of the host's time up to that point and the device's from
there on. The Trainer waits for the device after each micro-step (it looks whether the loss is a number).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, cast

import numpy as np

from axoc.cost import communication, flops, lengths, overlap, sight, stretches, walks, zero3_hooks
from axoc.cost.activations import module_kind, programs, timed_setting
from axoc.cost.columns import Columns, Floats
from axoc.cost.distinct import distinct
from axoc.cost.generation import generation_seconds
from axoc.cost.kernels import dense_rate, kernels_of
from axoc.cost.launching import HostCosts, host_costs, optimizer_host_seconds
from axoc.cost.meter import CASTS, PARTS
from axoc.cost.passes import forward_seconds
from axoc.cost.scenario import Scenario
from axoc.cost.stragglers import SLOWEST, waiting_seconds
from axoc.cost.stretches import Passes, Stretch
from axoc.cost.tensors import matrices, trained_tensors

HOST: Final = "waiting for the host"
PASSES: Final = "passes without gradients"
SAMPLING: Final = "sampling answers"
HOST_MEMORY_BYTES_PER_SECOND: Final = 100e9
"""Of a socket pair, as DeepSpeedCPUAdam reaches it: about 28 bytes a parameter."""

STOCHASTIC_OPERATIONS: Final = 6.0
"""Launched for each tensor: four views, one compiled kernel, whose guards are taken to be as long as an operation (optimizers/
stochastic_adamw.py); it moves what a fused AdamW moves, and makes its chances by a few integer operations."""
NEWTON_SCHULZ_STEPS: Final = 5
"""torch.optim.Muon's default."""
DEEPSPEED_BYTES: Final = 36.0
"""Moved a trained parameter beside the optimizer's own, gradients in bf16: into the bucket 4, divided 4, out of it 4, cast
to fp32 6, read for the norm 4, clipped 8 where it is done, weights cast back 6
(deepspeed/runtime/zero/stage_1_and_2.py: reduce_independent_p_g_buckets_and_remove_grads, get_flat_partition, step)."""


@dataclass(frozen=True, kw_only=True)
class TimeColumns:
    step_seconds: Floats
    breakdown: dict[str, Floats]
    """Parts that add up to the step."""
    tokens_per_second: Floats
    """Of the whole job, without padding; rows are full where their lengths are not known."""
    mfu: Floats
    padding_share: Floats
    """Of the tokens that are computed."""

    @property
    def waits(self) -> Floats:
        """Share of the step in which the device waits for the host."""
        return cast(Floats, self.breakdown[HOST] / self.step_seconds)


@dataclass(frozen=True, kw_only=True)
class MicroSteps:
    """Of all of a step's."""

    kernels: dict[str, Floats]
    """Device seconds by part."""
    busy: Floats
    """The same without sums of gradients, which come when all ranks have theirs."""
    waits: Floats
    """Seconds in which the device waits for the host."""
    each: Floats
    """Until one of them is done."""


def step_time(scenario: Scenario, c: Columns) -> TimeColumns:
    device, elapsed = _micro_step(scenario, c)
    kernels = {name: seconds * c.accumulation for name, seconds in device.items()}
    kernels[CASTS] += _gradient_sums(scenario, c) * np.maximum(c.accumulation - 1, 0)
    whole = cast(Floats, sum(device.values()))
    waits = (elapsed - whole) * c.accumulation
    found = MicroSteps(kernels=kernels, busy=whole * c.accumulation, waits=waits, each=elapsed)
    return whole_step(scenario, c, found)


def whole_step(scenario: Scenario, c: Columns, found: MicroSteps) -> TimeColumns:
    """With all that is not a micro-step's own."""
    breakdown = found.kernels | {HOST: found.waits}
    breakdown |= _communication(scenario, c, found.each)
    if scenario.objective.passes:
        breakdown[PASSES] = forward_seconds(scenario, c) * scenario.objective.passes * c.accumulation
    if scenario.objective.generated is not None:
        breakdown[SAMPLING] = generation_seconds(scenario, c)
    if scenario.model.vision is not None:
        breakdown[sight.SECONDS] = sight.seconds(scenario, c) * c.accumulation
    breakdown["optimizer"] = optimizer_seconds(scenario, c)
    breakdown[SLOWEST] = waiting_seconds(scenario, c, found.busy)
    step = cast(Floats, sum(breakdown.values()))
    real = scenario.by_variant(c, lengths.real_tokens)
    useful = scenario.by_variant(c, flops.model_flops) * c.accumulation
    return TimeColumns(
        step_seconds=step,
        breakdown=breakdown,
        tokens_per_second=real * c.accumulation * c.data_parallel / step,
        mfu=useful / (step * dense_rate(scenario)),
        padding_share=scenario.by_variant(c, lengths.padding_share),
    )


def _micro_step(scenario: Scenario, c: Columns) -> tuple[dict[str, Floats], Floats]:
    """(device seconds by part, seconds until the device is done). Rows that differ in nothing it depends on, once."""
    kind = np.minimum(module_kind(c), 2)  # the kernels of ZeRO-3 are those of the other stages
    first, which = distinct(c.micro_batch, c.tensor_parallel, c.checkpointed_layers, kind, c.variant)
    few = c.rows(first)
    device = {part: np.zeros(len(few)) for part in PARTS}
    elapsed = np.zeros(len(few))
    known: Known = {}
    for variant, alike in programs(scenario, few, kind[first]):
        if alike.any():
            parts, elapsed[alike] = _Line(variant, few.rows(alike).of_one_variant(), known).run()
            for part in PARTS:
                device[part][alike] = parts[part]
    done = np.maximum(elapsed[which], zero3_hooks.host_seconds(scenario, c))
    return {part: seconds[which] for part, seconds in device.items()}, done


Known = dict[tuple[object, ...], list[tuple[float, Passes]]]


class _Line:
    """Segments of a micro-step in the order the host launches them."""

    def __init__(self, scenario: Scenario, c: Columns, known: Known) -> None:
        """``known``: blocks that were counted for another variant, which differs in its loss alone."""
        first, self.which = distinct(c.micro_batch, c.tensor_parallel)
        shapes = c.rows(first)
        s, kernels = timed_setting(scenario, shapes), kernels_of(scenario)
        tokens = lengths.micro_batch_tokens(scenario, shapes)
        self.scenario, self.columns = scenario, c
        self.embedding = stretches.embedding(s, kernels, tokens)
        dtypes = (s.stream, s.autocast, s.adapter)
        key = (*scenario.program_of_blocks, *dtypes, tokens.tobytes(), shapes.tensor_parallel.tobytes())
        if key not in known:
            known[key] = list(stretches.grouped_blocks(s, kernels, tokens))
        self.groups = known[key]
        self.tail = stretches.tail(s, kernels, tokens)
        self.costs: HostCosts = host_costs(scenario)
        self.outside: HostCosts = host_costs(replace(scenario, compile=False))
        self.device = {part: np.zeros(len(c)) for part in PARTS}
        self.segments: list[tuple[Floats, Floats]] = []

    def run(self) -> tuple[dict[str, Floats], Floats]:
        whole = np.ones(len(self.columns))
        counts = self._checkpointed()
        self.segments.append((whole * (self.costs.micro_step + walks.each_micro_step(self.scenario)), 0.0 * whole))
        self._add(self.embedding.forward, whole, outside=True)
        for (count, passes), again in zip(self.groups, counts, strict=True):
            self._add(passes.forward, again, extra=self.costs.each_pass + passes.hooks(self.costs)[0])
            self._add(passes.forward, count - again, extra=self.costs.each_pass)
        self._add(self.tail.forward, whole, outside=True)
        self._add(self.tail.backward, whole, outside=True)
        for (count, passes), again in reversed(list(zip(self.groups, counts, strict=True))):
            self._add(passes.backward, count - again, extra=self.costs.each_pass)
            self._add(_both(passes), again, extra=2 * self.costs.each_pass + passes.hooks(self.costs)[1])
        self._add(self.embedding.backward, whole, outside=True)
        return self.device, self._elapsed()

    def _checkpointed(self) -> list[Floats]:
        """Blocks of each group that are: the first ones."""
        found, begin = [], 0.0
        for count, _ in self.groups:
            found.append(np.clip(self.columns.checkpointed_layers - begin, 0.0, count))
            begin += count
        return found

    def _add(self, stretch: Stretch, times: Floats, *, extra: float = 0.0, outside: bool = False) -> None:
        """``outside``: of the blocks, which alone are compiled."""
        for part, seconds in stretch.device.items():
            self.device[part] = self.device[part] + self._of(seconds) * times
        host = self._of(np.asarray(stretch.host(self.outside if outside else self.costs)))
        self.segments.append(((host + extra) * times, self._of(stretch.seconds) * times))

    def _of(self, seconds: Floats) -> Floats:
        return cast(Floats, np.broadcast_to(seconds, (int(np.max(self.which)) + 1,))[self.which])

    def _elapsed(self) -> Floats:
        """The largest, over the bounds of segments, of the host's time before and the device's after."""
        host = np.cumsum([h for h, _ in self.segments], axis=0)
        device = np.cumsum([d for _, d in self.segments][::-1], axis=0)[::-1]
        bounds = [host[0] + device[0], *(host[i] + device[i + 1] for i in range(len(host) - 1)), host[-1]]
        return cast(Floats, np.max(bounds, axis=0))


def _both(passes: Passes) -> Stretch:
    """A checkpointed block's second forward and its backward."""
    again, back = passes.again, passes.backward
    return Stretch(
        device={part: again.device[part] + back.device[part] for part in PARTS},
        **{name: getattr(again, name) + getattr(back, name) for name in stretches.COUNTED},
    )


def _gradient_sums(scenario: Scenario, c: Columns) -> Floats:
    """Each micro-step but the first adds its gradients to those that are there."""
    trained = scenario.trainable / (c.gradient_shards * c.tensor_parallel)
    return cast(Floats, kernels_of(scenario).pointwise("add_", trained, float(scenario.trainable_bytes)))


def _communication(scenario: Scenario, c: Columns, compute: Floats) -> dict[str, Floats]:
    """Tensor parallelism and offloading wait for their copies; of the rest, what is not hidden."""
    each_micro, each_step = communication.offload_seconds(scenario, c)
    return overlap.communication(scenario, c, compute) | {
        "tensor-parallel communication": communication.tensor_parallel_seconds(scenario, c) * c.accumulation,
        "host copies": each_micro * c.accumulation + each_step,
    }


def optimizer_seconds(scenario: Scenario, c: Columns) -> Floats:
    """Clipping and step, the device idle at first, then the gradients let go; on the host where it is offloaded."""
    local = scenario.trainable / (c.optimizer_shards * c.tensor_parallel)
    tensors, kernels = trained_tensors(scenario), kernels_of(scenario)
    bytes_ = float(scenario.trainable_bytes)
    host = [optimizer_host_seconds(scenario, name, tensors) for name in ("grad_norm", scenario.optimizer)]
    device = [kernels.optimizer(name, local, tensors, bytes_) for name in ("grad_norm", scenario.optimizer)]
    if scenario.rounds_stochastically:
        host[1] = tensors * STOCHASTIC_OPERATIONS * host_costs(scenario).operation
    if scenario.optimizer == "muon":
        device[1] = device[1] + orthogonalization_seconds(scenario)
    walk = walks.each_pass(scenario)
    host[0] += walk
    on_device = np.maximum(device[0] + device[1], host[0] + np.maximum(device[1], host[1] + walk))
    masters = kernels.optimizer(scenario.optimizer, local, tensors, 4.0) + kernels.moved(local * DEEPSPEED_BYTES)
    on_device = np.where(c.deepspeed, masters, on_device) + host_costs(scenario).step
    on_host = (
        local * 28.0 / (HOST_MEMORY_BYTES_PER_SECOND / np.minimum(c.world, scenario.cluster.accelerators_per_node))
    )
    return cast(Floats, np.where(c.offloads_optimizer, on_host, on_device))


def orthogonalization_seconds(scenario: Scenario) -> float:
    """Muon's five rounds of three products a matrix, in bf16 (torch/optim/_muon.py, _zeropower_via_newtonschulz)."""
    kernels, total = kernels_of(scenario), 0.0
    for short, long, times in matrices(scenario):
        shapes = ((short, short, long), (short, short, short), (short, long, short))
        total += times * NEWTON_SCHULZ_STEPS * sum(float(kernels.matmul("nn", *shape, 2.0)[0]) for shape in shapes)
    return total
