"""Inductor as it compiles for an accelerator, without one: its own lowering, fusion and memory planning of graphs whose tensors
are said to be on CUDA, down to the program it writes (generated.py runs that).

AOTAutograd has cut the graph before, on CPU tensors: a torch built without CUDA cannot differentiate others. Source of what is
asked of a device: torch/_dynamo/device_interface.py, torch/_inductor/runtime/hints.py (DeviceProperties).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any, Final
from unittest.mock import patch

import torch
from torch._dynamo import device_interface
from torch._functorch import config as functorch_config
from torch._inductor import compile_fx, config, inductor_prims, scheduler
from torch._inductor.graph import GraphLowering
from torch._inductor.runtime.hints import DeviceProperties
from torch._prims import TensorMeta
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx.node import map_aggregate
from torch.utils import _triton
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_map

from axoc_runtime.trace.aside import can_fork
from axoc_runtime.trace.backward import later
from axoc_runtime.trace.device import Device
from axoc_runtime.trace.generated import program
from axoc_runtime.trace.patching import replaced

CUDA: Final = torch.device("cuda", 0)
WARP: Final = 32
THREADS_PER_BLOCK: Final = 1024
THREADS_PER_MULTIPROCESSOR: Final = 2048
REGISTERS: Final = 65536
"""Of a multiprocessor; of GPUs from compute capability 7 on (CUDA programming guide, technical specifications)."""


@contextmanager
def inductor(device: Device, *, alike: bool) -> Iterator[None]:
    """torch.compile's own backend, for ``device``. ``alike``: all batches are, and no guard on a symbol matters."""
    with replaced(compile_fx, "compile_fx", backend(device, alike)):
        yield


def backend(device: Device, alike: bool) -> Any:
    whole, graph = compile_fx.compile_fx, compile_fx.compile_fx_inner

    def lowered(module: Any, inputs: Sequence[Any], **kwargs: Any) -> Any:
        now = partial(lowered_now, module, inputs, **kwargs)
        apart = kwargs.get("is_backward") and can_fork() and (alike or not any(map(symbolic, inputs)))
        return later(now) if apart else now()

    def lowered_now(module: Any, inputs: Sequence[Any], **kwargs: Any) -> Any:
        from axoc_runtime.trace.cuda_as_cpu import no_model

        with _disable_current_modes(), no_model(), on_cuda(device):
            move(module)
            return graph(module, [moved(value) for value in inputs], **kwargs)

    def compiled(module: Any, inputs: Sequence[Any], **kwargs: Any) -> Any:
        from axoc_runtime.trace.cuda_as_cpu import CudaAutocast

        options = {"enable_autograd_cache": False, "force_non_lazy_backward_lowering": can_fork()}
        with CudaAutocast(), functorch_config.patch(options):  # the cache's key is of all of torch's sources
            return whole(module, inputs, inner_compile=lowered, **kwargs)

    return compiled


def symbolic(value: Any) -> bool:
    """A number, or a tensor of sizes, that is not the same whenever a graph is run: a backward's guards on it are the graph's own."""
    return isinstance(value, torch.SymInt) or (isinstance(value, torch.Tensor) and value._has_symbolic_sizes_strides)


def move(module: Any) -> None:
    """Says of every tensor in a graph that it is on the accelerator."""
    for node in module.graph.nodes:
        node.args, node.kwargs = map_aggregate(node.args, named), map_aggregate(node.kwargs, named)
        if "val" in node.meta:
            node.meta["val"] = tree_map(moved, node.meta["val"])
    module.recompile()


def named(value: Any) -> Any:
    return CUDA if isinstance(value, torch.device) else value


def moved(value: Any) -> Any:
    if not isinstance(value, FakeTensor):
        return value
    with value.fake_mode:
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=CUDA)


def written(graph: GraphLowering) -> Any:
    """In place of GraphLowering.compile_to_module, which would load what it wrote."""
    source, _ = graph.codegen()
    call: Any = program(source.value, graph.constants)
    call.written = source.value, graph.constants
    return SimpleNamespace(call=call, __file__="", key="")


def copied(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Tensor.copy_ of fake tensors: a torch without CUDA looks for its device guard in it."""
    return tensor


def seed(seeds: torch.Tensor, index: int) -> Any:
    """One of a graph's random seeds. Inductor says its shape with an index (inductor_prims.py, lookup_seed), for which a torch without
    CUDA looks for its device guard."""
    return TensorMeta(shape=(), strides=(), dtype=seeds.dtype, device=seeds.device)


def properties_of(device: Device) -> SimpleNamespace:
    """torch.cuda.get_device_properties."""
    return SimpleNamespace(
        type="cuda",
        name="",
        gcnArchName="",
        major=device.major,
        minor=0,
        multi_processor_count=device.multiprocessors,
        total_memory=0,
        warp_size=WARP,
        regs_per_multiprocessor=REGISTERS,
        max_threads_per_multi_processor=THREADS_PER_MULTIPROCESSOR,
        max_threads_per_block=THREADS_PER_BLOCK,
    )


def interface(properties: SimpleNamespace) -> Any:
    """What Dynamo and Inductor ask of CUDA."""
    answers: dict[str, Any] = {
        "get_device_properties": lambda device=None: properties,
        "get_compute_capability": lambda device=None: 10 * properties.major,
        "current_device": lambda: 0,
        "exchange_device": lambda index: 0,
        "maybe_exchange_device": lambda index: 0,
        "get_raw_stream": lambda index=0: 0,
        "is_available": lambda: True,
        "is_bf16_supported": lambda including_emulation=False: True,
    }
    made = {name: staticmethod(answer) for name, answer in answers.items()}
    return type("Interface", (device_interface.CudaInterface,), made)


@contextmanager
def on_cuda(device: Device) -> Iterator[None]:
    """A machine that has ``device``, as far as Inductor asks before it writes code."""
    properties = properties_of(device)
    asked = interface(properties)
    device_interface.init_device_reg()
    DeviceProperties.create.cache_clear()
    with ExitStack() as stack:
        stack.enter_context(patch.dict(device_interface.device_interfaces, {"cuda": asked, "cuda:0": asked}))
        stack.enter_context(replaced(torch.cuda, "get_device_properties", lambda device=None: properties))
        stack.enter_context(replaced(torch.cuda, "get_device_capability", lambda device=None: (properties.major, 0)))
        stack.enter_context(replaced(torch.cuda, "current_device", lambda: 0))
        stack.enter_context(
            replaced(torch.Tensor, "is_pinned", lambda tensor, *args: False)
        )  # no graph's is the host's
        stack.enter_context(
            replaced(torch.Tensor, "__invert__", lambda tensor: torch.bitwise_not(tensor))
        )  # as in Copies
        stack.enter_context(replaced(scheduler, "has_triton", lambda: True))
        stack.enter_context(replaced(_triton, "triton_hash_with_backend", lambda: ""))
        stack.enter_context(replaced(GraphLowering, "compile_to_module", written))
        stack.enter_context(replaced(inductor_prims.lookup_seed, "prim_meta_impl", seed))
        stack.enter_context(replaced(torch.Tensor, "copy_", copied))
        stack.enter_context(config.patch(force_disable_caches=True, compile_threads=1, profile_bandwidth=True))
        yield
