"""ZeRO with its optimizer, and perhaps its weights, on the host: what the device then still holds.

Source: deepspeed 0.19.8, runtime/zero/stage_1_and_2.py, stage3.py and partition_parameters.py; named are their methods. Copies
from the device change the dtype on the device where they do not block, others on the host (ATen/native/cuda/Copy.cu), and
DeepSpeed casts gradients before it copies them.
"""

from __future__ import annotations

from typing import Any, Final

import torch

from axoc_runtime.trace.zero import norm_of, read_config
from axoc_runtime.trace.zero_1_2 import ZeroOneTwo, padded
from axoc_runtime.trace.zero_3 import REDUCE_STREAM, ZeroThree
from axoc_runtime.trace.zero_fetch import Part

NORMED_ELEMENTS: Final = 250_000_000
"""At once, in fp64 (_constant_buffered_norm2)."""


class OffloadedOneTwo(ZeroOneTwo):
    """Weights whole on the device; masters, states and a rank's gradients on the host."""

    last = True

    def before_forward(self, *, last: bool) -> None:
        self.last = last

    def ordered(self, parameters: list[Any]) -> list[Any]:
        """_round_robin_reorder"""
        if not read_config(self.job).get("zero_optimization", {}).get("round_robin_gradients"):
            return parameters
        return [p for rank in range(self.world) for p in parameters[rank :: self.world]]

    def master_of(self, low: torch.Tensor) -> torch.Tensor:
        """Cloned on the device, cast and kept on the host."""
        copied = low.clone()
        del copied
        return low

    def _fullest(self) -> int:
        """No rank has a buffer of its own gradients. What differs: of accumulated ones those too large for the bucket stay until
        a backward's end, and the largest slice is copied whole to fp64 for its norm."""
        large, slices = [0] * self.world, [0] * self.world
        for group in self.optimizer.param_groups:
            parameters, start = self.ordered(list(group["params"])), 0
            share = padded(sum(p.numel() for p in parameters), self.world) // self.world
            for parameter in parameters:
                end = start + parameter.numel()
                for rank in range(start // share, min((end - 1) // share + 1, self.world)):
                    mine = min(end, (rank + 1) * share) - max(start, rank * share)
                    slices[rank] = max(slices[rank], mine)
                    large[rank] += parameter.numel() if parameter.numel() > self.settings.reduce_bucket else 0
                start = end
        accumulates = self.job.training.gradient_accumulation_steps > 1
        return max(range(self.world), key=lambda rank: (large[rank] * accumulates, slices[rank], rank))

    def _initialize(self) -> None:
        """temp_grad_buffer_for_gpu_offload: room for the largest gradient, to add what waits on the host; it stays."""
        largest = max(p.numel() for g in self.groups for p in g.parameters)
        self.returning = torch.zeros(largest, dtype=self.groups[0].low.dtype)

    def _keep(self, parameter: Any) -> None:
        """copy_grads_in_partition: to the host after each micro-step; at a step's last the norm of this rank's slice, and the slice
        in fp32 on its way. Before it the gradient stays."""
        if not self.last:
            return
        group = self.group_of[id(parameter)]
        start = group.starts[id(parameter)] - group.begin
        first, end = max(0, -start), min(parameter.numel(), group.low.numel() - start)
        mine = parameter.grad.view(-1).narrow(0, first, end - first)
        norm_of([mine])
        single = mine.to(torch.float32)
        del single
        parameter.grad = None

    def collect_all(self, last: bool) -> None:
        """Nothing: gradients are on the host."""

    def update(self) -> None:
        """On the host; the weights come back into the place they have."""


class OffloadedThree(ZeroThree):
    """Masters, states and gradients on the host; shares of the weights too, where parameters are offloaded."""

    last = True

    def before_forward(self, *, last: bool) -> None:
        self.last = last
        super().before_forward(last=last)

    @property
    def weights_too(self) -> bool:
        return self.job.distributed.offload == "optimizer+parameters"

    def _partition(self) -> None:
        """_partition_param: persistent ones stay on the device, but for those that are trained (_move_to_flat_buffer)."""
        super()._partition()
        for part in self.parts.values():
            part.on_host = self.weights_too and (part.parameter.requires_grad or not part.persists)
            if part.on_host:
                part.shard = part.shard.new_empty(0)

    def _defragment(self) -> None:
        if not self.weights_too:
            super()._defragment()
            return
        self.sub_groups = [s for g in self.optimizer.param_groups for s in self._sub_groups(g)]

    def _masters(self) -> None:
        """On the host; cast there too."""

    def _buffers(self) -> None:
        dtype = self.sub_groups[0].parts[0].shard.dtype
        self.bucket = torch.empty(self.settings.reduce_bucket, dtype=dtype)
        self.filled = 0
        self.waiting: list[tuple[Part, torch.Tensor]] = []

    def _reduce(self) -> None:
        """__avg_scatter_grads, partition_grads: this rank's parts are written to the host and fetched back, to be added to or
        normed; all of a bucket's are there until it is done. At a step's last micro-batch an fp32 copy of each goes to the host."""
        parts = [part for part, _ in self.waiting]
        with self.live.on_stream(REDUCE_STREAM if self.settings.overlap else 0):
            interleaved: Any = None
            if len(parts) != 1 or parts[0].numel % self.world:
                interleaved = torch.empty(sum(p.per_rank for p in parts) * self.world, dtype=self.bucket.dtype)
            buffers = []
            for part in parts:
                buffers.append(part.empty(part.per_rank))
                if self.last:
                    norm_of(list(buffers[-1].split(NORMED_ELEMENTS)))
                    single = buffers[-1].to(torch.float32)
                    del single
            del interleaved, buffers
        self.waiting, self.filled = [], 0

    def update(self) -> None:
        """On the host: the device lets go of weights and has the small ones whole again."""
        self.fetching.release_all()
        self.fetching.gather_persistent()
