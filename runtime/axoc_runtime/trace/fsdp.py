"""FSDP2 as accelerate applies it: torch's own fully_shard, run by one rank of a process group that says nothing.

Sources: torch/distributed/fsdp/_fully_shard; accelerate 1.15, utils/fsdp_utils.py, fsdp2_prepare_model, which is called.
Ranks are alike but for dim 0 of parameters that the world size does not divide: rank 0 holds the largest piece.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any, Final

import torch
from torch import distributed

from axoc_runtime.errors import EXIT_INPUTS, RuntimeFailure
from axoc_runtime.job import Job
from axoc_runtime.trace.cuda_as_cpu import no_model
from axoc_runtime.trace.liveness import Liveness
from axoc_runtime.trace.optimizers import optimizer_for
from axoc_runtime.trace.patching import replaced
from axoc_runtime.trace.strategy import Strategy

PACKAGE: Final = "torch.distributed.fsdp._fully_shard"
STREAMED: Final = ("_fsdp_collectives", "_fsdp_param_group", "_fsdp_state")
"""Modules that ask for the device's streams."""


class Sharded(Strategy):
    lowers = False  # fully_shard's own mixed precision takes the place of autocast

    def __init__(self, job: Job, live: Liveness) -> None:
        super().__init__(job, live)
        self.own_context = ExitStack()

    def take(self, model: Any) -> None:
        placed = self.job.distributed
        data, tensor = placed.data_parallel, placed.tensor_parallel
        self.own_context.enter_context(silent_group(data * tensor))
        self.own_context.enter_context(streams_and_storages(self.live))
        mesh = mesh_of(placed.replicate_degree, placed.shard_degree, tensor)
        if tensor > 1:
            from axoc_runtime.strategies.tensor import split_layers

            split_layers(model, mesh["tensor"])
        hybrid = placed.replicate_degree > 1
        self.model = prepared(self.job, model, mesh["copies", "data"] if hybrid else mesh["data"])
        self.live.settle()  # units are moved to the device and split one after the other
        self.optimizer = optimizer_for(self.job, self.model)
        self.local = {
            id(p): torch.nn.Parameter(p._local_tensor.detach()) for p in self.model.parameters() if is_split(p)
        }
        for group in self.optimizer.param_groups:
            group["params"] = [self.local.get(id(p), p) for p in group["params"]]

    def update(self) -> None:
        """The optimizer sees DTensors, and does with each what it does with the local one."""
        for parameter in self.model.parameters():
            if is_split(parameter) and parameter.grad is not None:
                self.local[id(parameter)].grad = parameter.grad._local_tensor
                parameter.grad = None
        mine = [p for group in self.optimizer.param_groups for p in group["params"]]
        if self.job.training.max_grad_norm > 0:
            torch.nn.utils.clip_grad_norm_(mine, self.job.training.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def close(self) -> None:
        self.own_context.close()


def is_split(parameter: Any) -> bool:
    return hasattr(parameter, "_local_tensor")


def prepared(job: Job, model: Any, mesh: Any) -> Any:
    """accelerate's preparation, with as much of an accelerator as it asks for."""
    from accelerate.utils.dataclasses import FullyShardedDataParallelPlugin

    from axoc_runtime.strategies.units import prepared_in_units

    settings = read_config(job)
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        reshard_after_forward=bool(settings.get("reshard_after_forward", True)),
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=list(settings.get("transformer_layer_cls_to_wrap", [job.model.decoder_block])),
        cpu_ram_efficient_loading=False,
        cpu_offload=job.distributed.offload != "none",
    )
    mixed = mixed_precision(job)
    if mixed != "no":
        plugin.set_mixed_precision(mixed)
    accelerator = SimpleNamespace(
        state=SimpleNamespace(fsdp_plugin=plugin),
        torch_device_mesh={("data",): mesh},
        parallelism_config=SimpleNamespace(fsdp_dim_names=["data"]),
        mixed_precision=mixed,
        is_main_process=False,
        device=torch.device("cpu"),
    )
    return prepared_in_units(job, accelerator, model)


def mixed_precision(job: Job) -> str:
    """As strategies.py, precision_arguments: weights trained in bfloat16 stay so only with it off."""
    return "no" if job.model.dtype == "bfloat16" else job.distributed.autocast


def read_config(job: Job) -> dict[str, Any]:
    if job.distributed.config is None:
        return {}
    path = job.bundle_dir / job.distributed.config
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        fix = "trace inside the bundle, or with the file beside job.json"
        raise RuntimeFailure(f"{path}: cannot be read as FSDP's configuration: {error}", EXIT_INPUTS, fix) from None


@contextmanager
def silent_group(world: int) -> Iterator[None]:
    """A process group of ``world`` ranks of which this is the first, and whose collectives do nothing. Meshes of its
    ranks are made of real numbers."""
    from torch.distributed.device_mesh import DeviceMesh
    from torch.testing._internal.distributed.fake_pg import FakeStore

    make = DeviceMesh.__init__

    def begin(mesh: Any, *args: Any, **options: Any) -> None:
        with without_modes():
            make(mesh, *args, **options)

    with without_modes():
        distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=world)
    try:
        with replaced(DeviceMesh, "__init__", begin):
            yield
    finally:
        distributed.destroy_process_group()


def mesh_of(copies: int, data: int, tensor: int) -> Any:
    """Ranks by copy, then shard, then tensor-parallel index, as in strategies/mesh.py."""
    from torch.distributed.device_mesh import DeviceMesh

    with without_modes():
        ranks = torch.arange(copies * data * tensor).view(copies, data, tensor)
        return DeviceMesh("cpu", ranks, mesh_dim_names=("copies", "data", "tensor"))


def without_modes() -> Any:
    """Real tensors, which nobody counts."""
    from torch.utils._python_dispatch import _disable_current_modes

    return _disable_current_modes()


class Pieces:
    """torch.chunk of a parameter, made as they are asked for: of a hundred ranks' FSDP2 wants two."""

    def __init__(self, tensor: torch.Tensor, number: int, dim: int) -> None:
        self.tensor, self.dim = tensor, dim
        self.size = -(-tensor.size(dim) // number)

    def __getitem__(self, rank: int) -> torch.Tensor:
        start = rank * self.size
        if start >= self.tensor.size(self.dim):
            return self.tensor.new_empty(0)
        return self.tensor.narrow(self.dim, start, min(self.size, self.tensor.size(self.dim) - start))


class Event:
    """Nothing is waited for: what runs here runs in order."""

    def record(self, stream: Any = None) -> None:
        pass

    def synchronize(self) -> None:
        pass


class MemoryStream:
    """All there is to a stream here is which memory it allocates from."""

    def __init__(self, number: int) -> None:
        self.number = number

    def record_event(self, event: Any = None) -> Any:
        return Event()

    def wait_event(self, event: Any) -> None:
        pass

    def wait_stream(self, stream: Any) -> None:
        pass


class Streams:
    """What FSDP2 takes for the device's module (torch.cuda)."""

    def __init__(self, live: Liveness) -> None:
        self.live = live
        self.made = [MemoryStream(0)]

    Event = Event

    def Stream(self, *args: Any, **options: Any) -> MemoryStream:  # noqa: N802  torch's name
        self.made.append(MemoryStream(len(self.made)))
        return self.made[-1]

    def current_stream(self, *args: Any) -> MemoryStream:
        return self.made[self.live.stream]

    def stream(self, stream: MemoryStream) -> Any:
        return self.live.on_stream(stream.number)


@contextmanager
def streams_and_storages(live: Liveness) -> Iterator[None]:
    """Streams that tell the allocator, and storages whose resizing is seen."""
    handle = Streams(live)

    def allocate(tensor: torch.Tensor) -> None:
        live.resize(tensor.untyped_storage(), tensor.numel() * tensor.itemsize)

    def free(tensor: torch.Tensor) -> None:
        live.resize(tensor.untyped_storage(), 0)

    with ExitStack() as stack:
        for kind in ("DefaultAllGather", "DefaultReduceScatter"):  # the silent group's would be asked in vain
            collective = getattr(importlib.import_module(f"{PACKAGE}._fsdp_collectives"), kind)
            stack.enter_context(replaced(collective, "__call__", lambda *args, **options: None))
        for name, does in (("__enter__", lambda label: label), ("__exit__", lambda *args: None)):
            stack.enter_context(replaced(torch.profiler.record_function, name, does))  # thousands of labels
        for name in STREAMED:
            module = importlib.import_module(f"{PACKAGE}.{name}")
            stack.enter_context(replaced(module, "_get_device_handle", lambda kind: handle))
        stack.enter_context(replaced(torch.accelerator, "current_stream", handle.current_stream))
        groups = importlib.import_module(f"{PACKAGE}._fsdp_param_group").FSDPParamGroup
        for name in ("pre_forward", "post_forward"):
            stack.enter_context(replaced(groups, name, no_model()(getattr(groups, name))))
        parameters = importlib.import_module(f"{PACKAGE}._fsdp_param")
        stack.enter_context(replaced(parameters, "_chunk_with_empty", Pieces))
        stack.enter_context(replaced(parameters, "alloc_storage", allocate))
        stack.enter_context(replaced(parameters, "free_storage", free))
        yield
