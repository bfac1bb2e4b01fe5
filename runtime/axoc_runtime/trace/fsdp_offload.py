"""FSDP2 with its parameters, gradients and optimizer on the host (CPUOffloadPolicy): what the device then still holds.

Source: torch/distributed/fsdp/_fully_shard, _fsdp_param.py (_init_sharded_param, all_gather_inputs) and _fsdp_collectives.py
(foreach_reduce). Here the host's tensors are on the same fake CPU as the device's: they are those that nobody counts.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import torch

from axoc_runtime.trace.fsdp import PACKAGE, Sharded
from axoc_runtime.trace.liveness import Liveness
from axoc_runtime.trace.patching import replaced

PARAMETERS: Final = f"{PACKAGE}._fsdp_param"


class OffloadedSharded(Sharded):
    """Shards come to the device to be gathered, and leave it as gradients once they are reduced."""

    def take(self, model: Any) -> None:
        with split_onto_host(self.live):
            super().take(model)
        self.own_context.enter_context(to_and_from_host(self.live))

    def update(self) -> None:
        """On the host, norms too."""
        with self.live.on_host():
            super().update()


@contextmanager
def split_onto_host(live: Liveness) -> Iterator[None]:
    """_init_sharded_param: a shard is made on the device, and copied."""
    with ExitStack() as stack:
        stack.enter_context(replaced(torch.Tensor, "cpu", lambda tensor: copied_to_host(live, tensor)))
        stack.enter_context(replaced(torch.Tensor, "pin_memory", lambda tensor: tensor))
        yield


@contextmanager
def to_and_from_host(live: Liveness) -> Iterator[None]:
    """all_gather_inputs: each shard is copied in its own dtype, and cast on the device. foreach_reduce: each gradient is copied from
    the one buffer of its unit, or added on the host to what is there."""
    kind = importlib.import_module(PARAMETERS).FSDPParam
    to_dtype = importlib.import_module(PARAMETERS)._to_dtype_if_needed
    sharded, reset = kind.to_sharded_dtensor, kind.reset_sharded_param

    def inputs(parameter: Any) -> list[torch.Tensor]:
        return [to_dtype(parameter._sharded_param_data.clone(), parameter.param_dtype)]

    def gradient(parameter: Any, tensor: torch.Tensor) -> Any:
        return sharded(parameter, copied_to_host(live, tensor))

    def looked_at(parameter: Any) -> None:
        with live.on_host():
            reset(parameter)

    with ExitStack() as stack:
        stack.enter_context(replaced(torch.Tensor, "is_pinned", lambda tensor, *args: True))
        stack.enter_context(replaced(kind, "reset_sharded_param", looked_at))
        stack.enter_context(replaced(kind, "all_gather_inputs", property(inputs)))
        stack.enter_context(replaced(kind, "to_sharded_dtensor", gradient))
        yield


def copied_to_host(live: Liveness, tensor: torch.Tensor) -> torch.Tensor:
    with live.on_host():
        return tensor.clone()
