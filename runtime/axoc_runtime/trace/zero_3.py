"""ZeRO's third stage: weights, gradients and optimizer states split over the ranks.

Source: deepspeed 0.19.8, runtime/zero/stage3.py; named are its methods.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Final

import torch

from axoc_runtime.trace.model import causal_model
from axoc_runtime.trace.optimizers import optimizer_for, trained
from axoc_runtime.trace.patching import replaced
from axoc_runtime.trace.zero import Zero, flat, norm_of
from axoc_runtime.trace.zero_fetch import Fetching, Part, watch
from axoc_runtime.trace.zero_linear import zero_linear

REDUCE_STREAM: Final = 2


class SubGroup:
    """Parameters that the optimizer updates together: at most ``sub_group`` elements of a rank, as a rule."""

    def __init__(self, parts: list[Part], group: dict[str, Any]) -> None:
        self.parts, self.group = parts, group
        self.low: Any = None
        self.master: Any = None

    @property
    def elements(self) -> int:
        return sum(p.per_rank for p in self.parts)


class ZeroThree(Zero):
    own_context: ExitStack

    def take(self, model: Any) -> None:
        self.own_context = ExitStack()
        self.own_context.enter_context(replaced(torch.nn.functional, "linear", zero_linear))
        self.configure(model)
        self.model = model
        self.optimizer = optimizer_for(self.job, model)
        self.parts = {id(p): self._part(i, p) for i, p in enumerate(model.parameters())}
        self._partition()
        self.live.settle()  # zero.Init splits each parameter as it is made: they were never whole all at once
        self._defragment()
        self._masters()
        self._buffers()
        self.fetching = Fetching(self.settings, self.world, self.live)
        self._watch(model)

    def _part(self, number: int, parameter: Any) -> Part:
        """Padded so that all ranks hold the same (_aligned_size); small ones stay gathered (mark_persistent_parameters)."""
        return Part(
            parameter=parameter,
            shape=parameter.shape,
            number=number,
            per_rank=-(-parameter.numel() // self.world),
            persists=parameter.numel() <= self.settings.persistence,
        )

    def _partition(self) -> None:
        """_partition_param"""
        for part in self.parts.values():
            part.shard = part.parameter.detach().new_empty(part.per_rank)
            part.parameter.data = part.shard.new_empty(0)

    def _defragment(self) -> None:
        """_create_fp16_partitions_with_defragmentation: by way of the host into one buffer."""
        self.sub_groups = [s for g in self.optimizer.param_groups for s in self._sub_groups(g)]
        for part in (p for s in self.sub_groups for p in s.parts):
            part.shard = part.shard.new_empty(0)
        self.live.empty_cache()
        buffer = self.sub_groups[0].parts[0].shard.new_empty(sum(s.elements for s in self.sub_groups))
        start = 0
        for group in self.sub_groups:
            group.low = buffer.narrow(0, start, group.elements)
            for part in group.parts:
                part.shard = buffer.narrow(0, start, part.per_rank)
                start += part.per_rank

    def _sub_groups(self, group: dict[str, Any]) -> list[SubGroup]:
        """_create_fp16_sub_groups"""
        parts = [self.parts[id(p)] for p in group["params"]]
        found: list[SubGroup] = []
        gathered: list[Part] = []
        for part in parts:
            gathered.append(part)
            if sum(p.per_rank for p in gathered) >= self.settings.sub_group or part is parts[-1]:
                found.append(SubGroup(gathered, group))
                gathered = []
        return found

    def _masters(self) -> None:
        """_create_fp32_partitions: a conversion and a clone of it, and the conversion stays until the next one is made;
        then initialize_optimizer_states' zeros."""
        converted: Any = None
        for group in self.sub_groups:
            converted = group.low.to(torch.float32)
            group.master = converted.clone().requires_grad_()
            group.group["params"] = []
        del converted
        zeros = torch.zeros(max(s.elements for s in self.sub_groups))
        del zeros

    def _buffers(self) -> None:
        """_setup_for_real_optimizer: the bucket, and this rank's gradients in one buffer. Both stay."""
        dtype = self.sub_groups[0].low.dtype
        self.bucket = torch.empty(self.settings.reduce_bucket, dtype=dtype)
        self.filled = 0
        self.waiting: list[tuple[Part, torch.Tensor]] = []
        self.gradients = torch.zeros(sum(s.elements for s in self.sub_groups), dtype=dtype)

    def _watch(self, model: Any) -> None:
        leaves = [m for m in model.modules() if type(m).__name__ in self.settings.leaf_classes]
        inside = {id(m) for leaf in leaves for m in leaf.modules() if m is not leaf}
        for module in model.modules():
            recurse = any(module is leaf for leaf in leaves)
            own = list(module.parameters(recurse=recurse))
            if own and id(module) not in inside:
                self.fetching.parts[module] = [self.parts[id(p)] for p in own]
        self._watch_head(causal_model(model))
        for module in self.fetching.parts:
            watch(module, self.fetching)
        for parameter in trained(model):
            parameter.register_post_accumulate_grad_hook(self._arrived)

    def _watch_head(self, causal: Any) -> None:
        """Liger reads the head's weight without running the head: DeepSpeed gathers it at the first touch and makes it
        the model's own (ZeROOrderedDict, register_external_parameter)."""
        if self.job.model.kernels == "liger":
            head = self.parts[id(causal.get_output_embeddings().weight)]
            head.external = True
            self.fetching.parts[causal] = [head, *self.fetching.parts.get(causal, [])]

    def before_forward(self, *, last: bool) -> None:
        self.fetching.begin()

    def _arrived(self, parameter: Any) -> None:
        """reduce_independent_p_g_buckets_and_remove_grads, __add_grad_to_ipg_bucket"""
        part, numbers, gradient = self.parts[id(parameter)], parameter.grad.numel(), parameter.grad
        parameter.grad = None
        if self.filled + numbers > self.settings.reduce_bucket and self.filled:
            self._reduce()
        if self.filled + numbers <= self.settings.reduce_bucket:
            place = self.bucket.narrow(0, self.filled, numbers)
            place.copy_(gradient.view(-1))
            gradient = place
        self.waiting.append((part, gradient))
        self.filled += numbers

    def _reduce(self) -> None:
        """__avg_scatter_grads, reduce_scatter_coalesced: a copy of the bucket, interleaved by rank, but where it is one
        gradient that needs no padding; the results are added to this rank's gradients in place."""
        parts = [part for part, _ in self.waiting]
        with self.live.on_stream(REDUCE_STREAM if self.settings.overlap else 0):
            if len(parts) != 1 or parts[0].numel % self.world:
                interleaved = torch.empty(sum(p.per_rank for p in parts) * self.world, dtype=self.bucket.dtype)
                del interleaved
        self.waiting, self.filled = [], 0

    def after_backward(self, *, last: bool) -> None:
        if self.waiting:
            self._reduce()
        self.fetching.release_leftovers()

    def update(self) -> None:
        """step: weights are let go, norms taken, then sub-group by sub-group an fp32 copy of the gradients and the update."""
        self.fetching.release_all()
        norms = [norm_of(self._gradients(group)) for group in self.sub_groups]
        for group in self.sub_groups:
            whole = flat(self._gradients(group))
            group.master.grad = whole.to(torch.float32)
            del whole
            self.clip(group.master.grad)
            group.group["params"] = [group.master]
            self.optimizer.step()
            group.group["params"] = []
            group.low.copy_(group.master.detach())
            group.master.grad = None
        self.fetching.gather_persistent()
        del norms

    def close(self) -> None:
        self.own_context.close()

    def _gradients(self, group: SubGroup) -> list[torch.Tensor]:
        return [self.gradients.narrow(0, 0, part.per_rank) for part in group.parts]
