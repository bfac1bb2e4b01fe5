"""ZeRO-3's weights: split over the ranks, fetched when a module runs, prefetched, and let go.

Source: deepspeed 0.19.8, runtime/zero/partitioned_param_coordinator.py, partition_parameters.py, parameter_offload.py.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

import torch

from axoc_runtime.trace.liveness import Liveness
from axoc_runtime.trace.zero import ZeroSettings

FETCH_STREAM: Final = 1
"""A stream of its own has blocks of its own in the allocator."""


@dataclass(eq=False)
class Part:
    """A parameter as the ranks share it."""

    parameter: Any
    shape: torch.Size
    number: int
    """In the order of the model's parameters."""
    per_rank: int
    """Elements of each rank's share: the last one is padded."""
    persists: bool
    shard: Any = None
    on_host: bool = False
    """The share is; each gather copies it to the device first (offload_param)."""
    external: bool = False
    """Used by a module that does not own it: never let go before the step (register_external_parameter)."""
    here: bool = False
    flight: Flight | None = None
    users: set[Any] = field(default_factory=set)
    fetched_for: int = -1

    @property
    def numel(self) -> int:
        return self.shape.numel()

    def empty(self, elements: int) -> Any:
        return torch.empty(elements, dtype=self.shard.dtype)


class Flight:
    """An all-gather of several parameters: one flat buffer, from which each is copied once it is waited for
    (AllGatherCoalescedHandle)."""

    def __init__(self, parts: list[Part], world: int) -> None:
        self.parts = parts
        self.flat = torch.empty(sum(p.per_rank for p in parts) * world, dtype=parts[0].shard.dtype)
        shares = [part.empty(part.per_rank) for part in parts if part.on_host]  # until they are in the flat one
        del shares

    def wait(self) -> None:
        for part in self.parts:
            part.parameter.data = part.empty(part.numel).view(part.shape)
            part.here, part.flight = True, None


class Fetching:
    """PartitionedParameterCoordinator: the first step is recorded, the next ones follow the record and prefetch."""

    def __init__(self, settings: ZeroSettings, world: int, live: Liveness) -> None:
        self.settings, self.world, self.live = settings, world, live
        self.parts: dict[Any, list[Part]] = {}
        """Of each module that owns parameters."""
        self.mode = "none"  # then recording, then following
        self.order: list[Any] = []
        self.begin()

    def begin(self) -> None:
        """reset_step: at the start of each forward."""
        for part in {p for parts in self.parts.values() for p in parts if p.flight}:
            self._arrive(part)
            self._let_go(part)
        self.mode = {"none": "recording", "recording": "following" if self.order else "recording"}.get(
            self.mode, self.mode
        )
        if self.mode == "recording":
            self.order = []
        self.step = self.gathered = 0
        self.backward: dict[Any, set[Part]] = {}
        """Modules whose backward runs, with the frozen parameters that were recomputed inside."""
        self.queue = deque((part, i) for i, m in enumerate(self.order) for part in self.parts[m])
        self._kept: dict[tuple[Any, int], set[Part]] = {}
        for parts in self.parts.values():
            for part in parts:
                part.fetched_for = -1

    def fetch(self, module: Any, *, forward: bool) -> None:
        """fetch_sub_module: gathers what is not here, waits for it, then prefetches what comes next."""
        self._follow(module)
        parts = self.parts[module]
        if not forward:
            self.backward[module] = set()
        self._gather([p for p in parts if not p.here and p.flight is None])
        recomputing = forward and torch._C._current_graph_task_id() != -1
        for part in parts:
            part.users.add(module)
            if recomputing and self.backward and not part.parameter.requires_grad:
                next(reversed(self.backward.values())).add(part)
            self._arrive(part)
        if self.mode == "following":
            self._forget(parts)
            self._prefetch()
        self.step += 1

    def _follow(self, module: Any) -> None:
        """trace_prologue: another order than the recorded one ends the prefetching until the next forward."""
        if self.mode == "following" and (self.step >= len(self.order) or self.order[self.step] is not module):
            self.mode, self.order = "none", []
        if self.mode == "recording":
            self.order.append(module)

    def _forget(self, parts: list[Part]) -> None:
        """Takes from the queue what was fetched just now."""
        awaited = {p for p in parts if p.fetched_for < self.step}
        while self.queue and awaited:
            part, at = self.queue.popleft()
            part.fetched_for = at
            awaited.discard(part)

    def _prefetch(self) -> None:
        most, chosen, numbers = min(self.settings.max_live - self.gathered, self.settings.prefetch), [], 0
        while self.queue and numbers < most:
            part, at = self.queue.popleft()
            part.fetched_for = max(part.fetched_for, at)
            if not part.here and part.flight is None and part not in chosen:
                chosen.append(part)
                numbers += part.numel
        self._gather(chosen)

    def _gather(self, parts: list[Part]) -> None:
        """One parameter is gathered into its own memory, several into one buffer; a single rank has all it needs."""
        self.gathered += sum(p.numel for p in parts)
        with self.live.on_stream(FETCH_STREAM):
            if self.world > 1 and len(parts) > 1:
                flight = Flight(sorted(parts, key=lambda p: p.number), self.world)
                for part in parts:
                    part.flight = flight
                return
            for part in parts:
                alone = self.world == 1 and not part.on_host
                whole = part.shard if alone else part.empty(part.per_rank * self.world)
                if part.on_host and self.world > 1:
                    share = part.empty(part.per_rank)
                    del share
                part.parameter.data = whole[: part.numel].view(part.shape)
                part.here = True

    def _arrive(self, part: Part) -> None:
        if part.flight is not None:
            with self.live.on_stream(FETCH_STREAM):
                part.flight.wait()

    def release(self, module: Any, *, forward: bool) -> None:
        """release_sub_module: what will not be needed again within ``max_reuse`` elements."""
        going = self._to_release(module)
        touched = set(self.parts[module])
        if not forward:
            recomputed = self.backward.pop(module, set())
            touched |= recomputed
            going = going | {p for p in recomputed if not p.persists}
        for part in sorted(touched, key=lambda p: p.number):
            part.users.discard(module)
            if part in going and not part.external:
                self._let_go(part)

    def _to_release(self, module: Any) -> set[Part]:
        if self.mode != "following":
            return set(self.parts[module])
        key = (module, self.step)
        if key not in self._kept:
            going = {p for p in self.parts[module] if not p.persists and p.fetched_for <= self.step}
            passed = 0
            for later in self.order[self.step :]:
                if passed >= self.settings.max_reuse or not going:
                    break
                going -= set(self.parts[later])
                passed += sum(p.numel for p in self.parts[later])
            self._kept[key] = going
        return self._kept[key]

    def release_leftovers(self) -> None:
        """release_backward_leftovers: modules whose inputs need no gradient get no second hook."""
        for module in list(self.backward)[::-1]:
            for part in self.backward.pop(module) | set(self.parts[module]):
                part.users.discard(module)
                if not part.persists and not part.external:
                    self._let_go(part)

    def release_all(self) -> None:
        """release_and_reset_all: before the optimizer's step."""
        for part in {p for parts in self.parts.values() for p in parts}:
            self._arrive(part)
            part.users.clear()
            self._let_go(part)

    def gather_persistent(self) -> None:
        """After the step; each into its own memory (_allgather_params_coalesced)."""
        for part in sorted({p for parts in self.parts.values() for p in parts if p.persists}, key=lambda p: p.number):
            self._gather([part])

    def _let_go(self, part: Part) -> None:
        if part.here and not part.users:
            part.parameter.data = part.empty(0)
            part.here = False
            self.gathered -= part.numel


class Before(torch.autograd.Function):
    """On a module's output: its backward comes before the module's."""

    @staticmethod
    def forward(ctx: Any, output: Any, module: Any, fetching: Fetching) -> Any:
        ctx.module, ctx.fetching = module, fetching
        return output.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        if ctx.module not in ctx.fetching.backward:
            ctx.fetching.fetch(ctx.module, forward=False)
        return gradients[0], None, None


class After(torch.autograd.Function):
    """On a module's input: its backward comes after the module's."""

    @staticmethod
    def forward(ctx: Any, value: Any, module: Any, fetching: Fetching) -> Any:
        ctx.module, ctx.fetching = module, fetching
        return value.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        ctx.fetching.release(ctx.module, forward=False)
        return gradients[0], None, None


def watch(module: Any, fetching: Fetching) -> None:
    """The hooks of a module that owns parameters (_register_deepspeed_module)."""

    def enter(module: Any, inputs: Any) -> Any:
        fetching.fetch(module, forward=True)
        return mapped(inputs, lambda value: After.apply(value, module, fetching))  # type: ignore[no-untyped-call]

    def leave(module: Any, inputs: Any, output: Any) -> Any:
        fetching.release(module, forward=True)
        return mapped(output, lambda value: Before.apply(value, module, fetching))  # type: ignore[no-untyped-call]

    module.register_forward_pre_hook(enter)
    module.register_forward_hook(leave)


def mapped(value: Any, function: Any) -> Any:
    """``function`` of each tensor that needs a gradient, in tuples and lists too."""
    if isinstance(value, (tuple, list)):
        return type(value)(mapped(v, function) for v in value)
    return function(value) if isinstance(value, torch.Tensor) and value.requires_grad else value
