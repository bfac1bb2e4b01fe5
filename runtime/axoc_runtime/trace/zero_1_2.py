"""ZeRO's first two stages: optimizer states, then gradients, split over the ranks; weights whole on each.

Source: deepspeed 0.19.8, runtime/zero/stage_1_and_2.py; named are its methods.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import torch

from axoc_runtime.job import Job
from axoc_runtime.trace.liveness import Liveness
from axoc_runtime.trace.optimizers import optimizer_for
from axoc_runtime.trace.strategy import Rank
from axoc_runtime.trace.zero import Zero, flat, norm_of

ALIGNMENT: Final = 2
"""Elements a rank, nccl_start_alignment_factor."""


@dataclass
class Group:
    """One of the optimizer's groups of parameters, flattened."""

    parameters: list[Any]
    master: torch.Tensor
    """This rank's share in fp32, which the optimizer updates."""
    low: torch.Tensor
    """The same share in the module's dtype."""
    starts: dict[int, int]
    """Where each parameter begins in the flat group, by its id."""
    mine: list[Any]
    """Parameters that lie in this rank's share, the two that cross its borders included."""
    begin: int
    accumulated: list[torch.Tensor] | None = None
    averaged: list[torch.Tensor] = field(default_factory=list)


@dataclass
class Bucket:
    """Gradients on their way to the ranks that own them."""

    buffers: list[torch.Tensor] = field(default_factory=list)
    index: int = 0
    elements: int = 0
    parameters: list[Any] = field(default_factory=list)


class ZeroOneTwo(Zero):
    def __init__(self, job: Job, live: Liveness, rank: Rank = "fullest") -> None:
        super().__init__(job, live)
        self.which = rank

    def take(self, model: Any) -> None:
        self.configure(model)
        self.model = model
        self.optimizer = optimizer_for(self.job, model)
        self.rank = self.world - 1 if self.which == "last" else self._fullest()
        self.groups = [self._flattened(group) for group in self.optimizer.param_groups]
        self.group_of = {id(p): g for g in self.groups for p in g.parameters}
        self.owned = {id(p) for g in self.groups for p in g.mine}
        self.bucket = Bucket()
        self.in_partition: torch.Tensor | None = None
        self.used = 0
        self._initialize()
        for group in self.groups:
            for parameter in group.parameters:
                parameter.register_post_accumulate_grad_hook(self._arrived)

    def _initialize(self) -> None:
        """initialize_optimizer_states"""
        first = [torch.zeros_like(g.master) for g in self.groups]
        del first

    def _fullest(self) -> int:
        """The rank with most elements of whole parameters in its share: those it copies into its own buffer. Stage 2 makes
        that buffer when the first of their gradients arrives: the last rank has fewer perhaps, but its are the first."""
        counts = [0] * self.world
        for group in self.optimizer.param_groups:
            share, start = padded(sum(p.numel() for p in group["params"]), self.world) // self.world, 0
            for parameter in group["params"]:
                end = start + parameter.numel()
                for rank in range(start // share, min((end - 1) // share + 1, self.world)):
                    counts[rank] += parameter.numel()
                start = end
        return max(range(self.world), key=lambda rank: (counts[rank], rank))

    def _flattened(self, group: dict[str, Any]) -> Group:
        """flatten_dense_tensors_aligned, _update_model_bit16_weights, get_partition_info."""
        parameters = self.ordered(list(group["params"]))
        numbers = sum(p.numel() for p in parameters)
        padding = padded(numbers, self.world) - numbers
        tensors = [p.detach() for p in parameters]
        self.live.empty_cache()
        whole = flat([*tensors, tensors[0].new_zeros(padding)] if padding else tensors)
        starts, start = {}, 0
        for parameter in parameters:
            starts[id(parameter)] = start
            parameter.data = whole.narrow(0, start, parameter.numel()).view(parameter.shape)
            start += parameter.numel()
        del tensors
        share = whole.numel() // self.world
        begin = share * self.rank
        low = whole.narrow(0, begin, share)
        master = self.master_of(low)
        group["params"] = [master]
        mine = [p for p in parameters if starts[id(p)] < begin + share and starts[id(p)] + p.numel() > begin]
        return Group(parameters=parameters, master=master, low=low, starts=starts, mine=mine, begin=begin)

    def ordered(self, parameters: list[Any]) -> list[Any]:
        """As they lie in the flat group."""
        return parameters

    def master_of(self, low: torch.Tensor) -> torch.Tensor:
        return low.clone().to(torch.float32).requires_grad_()

    def _arrived(self, parameter: Any) -> None:
        """process_gradients: a hook on each parameter."""
        self._ready()
        if self.settings.stage == 2 or self.settings.overlap:
            self._reduce_later(parameter)

    def _ready(self) -> None:
        """setup_buckets: the buffers are made when the first gradient arrives."""
        if not self.bucket.buffers:
            dtype = self.groups[0].low.dtype
            count = 2 if self.settings.overlap else 1
            self.bucket.buffers = [torch.empty(self.settings.reduce_bucket, dtype=dtype) for _ in range(count)]
            self.bucket.index = 0

    def _reduce_later(self, parameter: Any) -> None:
        """reduce_independent_p_g_buckets_and_remove_grads: the gradient moves into the buffer; one that is larger than
        it stays where it is."""
        bucket, numbers = self.bucket, parameter.numel()
        if bucket.elements + numbers > self.settings.reduce_bucket:
            self._reduce()
            bucket.index = len(bucket.buffers) - 1 - bucket.index
        if numbers <= self.settings.reduce_bucket:
            place = bucket.buffers[bucket.index].narrow(0, bucket.elements, numbers)
            place.copy_(parameter.grad.view(-1))
            parameter.grad.data = place.view_as(parameter.grad)
        bucket.elements += numbers
        bucket.parameters.append(parameter)

    def _reduce(self) -> None:
        """reduce_ipg_grads: averages the bucket, then keeps what this rank owns."""
        if self.bucket.parameters:
            self._average()
        for parameter in self.bucket.parameters:
            if id(parameter) in self.owned:
                self._keep(parameter)
            elif self.settings.stage == 2:
                parameter.grad = None
        self.bucket.elements = 0
        self.bucket.parameters = []

    def _average(self) -> None:
        """average_tensor, allreduce_and_scatter: slices for several ranks are copied side by side to be reduced; those for
        one are one slice, which is not copied."""
        pending: list[int] = []
        for numbers in self._slices():
            pending.append(numbers)
            if sum(pending) > self.settings.reduce_bucket:
                self._copied(pending)
                pending = []
        self._copied(pending)

    def _copied(self, slices: list[int]) -> None:
        if len(slices) > 1:
            side_by_side = torch.empty(sum(slices), dtype=self.groups[0].low.dtype)
            del side_by_side

    def _slices(self) -> list[int]:
        """Elements of the bucket by the rank they go to, in order; neighbours for one rank are one slice."""
        found: list[tuple[int, int]] = []
        for parameter in self.bucket.parameters:
            group = self.group_of[id(parameter)]
            share, start = group.low.numel(), group.starts[id(parameter)]
            end = start + parameter.numel()
            while start < end:
                rank = start // share
                numbers = min(end, (rank + 1) * share) - start
                if found and found[-1][0] == rank:
                    found[-1] = (rank, found[-1][1] + numbers)
                else:
                    found.append((rank, numbers))
                start += numbers
        return [numbers for _, numbers in found]

    def _keep(self, parameter: Any) -> None:
        """copy_grads_in_partition: into one buffer of all parameters that touch this rank's share, whole."""
        if self.in_partition is None:
            numbers = sum(p.numel() for g in self.groups for p in g.mine)
            self.in_partition, self.used = torch.empty(numbers, dtype=self.groups[0].low.dtype), 0
        place = self.in_partition.narrow(0, self.used, parameter.numel())
        place.copy_(parameter.grad.view(-1))
        parameter.grad.data = place.view_as(parameter.grad)
        self.used += parameter.numel()

    def after_backward(self, *, last: bool) -> None:
        """allreduce_gradients, independent_gradient_partition_epilogue."""
        if self.settings.stage == 1 and not last:
            return
        if self.settings.stage == 1:
            for group in self.groups:
                for parameter in group.parameters:
                    if parameter.grad is not None and not self.settings.overlap:
                        self._reduce_later(parameter)
        self._reduce()
        self.collect_all(last)
        self.bucket.buffers, self.in_partition = [], None
        for group in self.groups:
            for parameter in group.parameters:
                parameter.grad = None

    def collect_all(self, last: bool) -> None:
        for group in self.groups:
            self._collect(group, last)

    def _collect(self, group: Group, last: bool) -> None:
        """get_all_grad_tensors, get_flat_partition: slices of the accumulated gradients."""
        arrived = [torch.zeros_like(p) if p.grad is None else p.grad for p in group.mine]
        if group.accumulated is None:
            group.accumulated = arrived
        else:
            for total, new in zip(group.accumulated, arrived, strict=True):
                total.add_(new)
        if last:
            group.averaged = [part for part in self._parts(group) if part.numel()]
            group.accumulated = None

    def _parts(self, group: Group) -> list[torch.Tensor]:
        share, parts = group.low.numel(), []
        for parameter, gradient in zip(group.mine, group.accumulated or [], strict=True):
            start = group.starts[id(parameter)] - group.begin
            first, end = max(0, -start), min(parameter.numel(), share - start)
            parts.append(gradient.contiguous().view(-1).narrow(0, first, end - first))
        rest = share - sum(part.numel() for part in parts)
        return [*parts, torch.zeros(rest, dtype=group.low.dtype)] if rest else parts

    def update(self) -> None:
        """step: norms of all, then group by group an fp32 copy of the gradients, the update, and the weights."""
        norms = [norm_of(group.averaged) for group in self.groups]
        every = self.optimizer.param_groups
        for group, options in zip(self.groups, every, strict=True):
            whole = flat(group.averaged)
            single = whole.to(torch.float32)
            del whole
            group.master.grad = single
            group.averaged = []
            self.clip(single)
            self.optimizer.param_groups = [options]
            self.optimizer.step()
            group.master.grad = None
            del single
            group.low.copy_(group.master.detach())
        self.optimizer.param_groups = every
        del norms


def padded(numbers: int, world: int) -> int:
    """Elements of a flat group: the same for each rank, on four-byte borders."""
    unit = ALIGNMENT * world
    return -(-numbers // unit) * unit
