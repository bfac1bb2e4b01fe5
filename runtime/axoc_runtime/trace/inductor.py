"""Inductor as it compiles for an accelerator, without one: its own lowering, fusion and memory planning of graphs whose tensors
are said to be on CUDA, down to the program it writes (generated.py runs that).

AOTAutograd has cut the graph before, on CPU tensors: a torch built without CUDA cannot differentiate others. Source of what is
asked of a device: torch/_dynamo/device_interface.py, torch/_inductor/runtime/hints.py (DeviceProperties).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any, Final
from unittest.mock import patch

import torch
from torch._dynamo import device_interface
from torch._inductor import compile_fx, config, scheduler
from torch._inductor.graph import GraphLowering
from torch._inductor.runtime.hints import DeviceProperties
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx.node import map_aggregate
from torch.overrides import TorchFunctionMode
from torch.utils import _triton
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_map

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
def inductor(device: Device) -> Iterator[None]:
    """torch.compile's own backend, for ``device``."""
    with replaced(compile_fx, "compile_fx", backend(device)):
        yield


def backend(device: Device) -> Any:
    whole, graph = compile_fx.compile_fx, compile_fx.compile_fx_inner

    def lowered(module: Any, inputs: Sequence[Any], **kwargs: Any) -> Any:
        with _disable_current_modes(), on_cuda(device):
            move(module)
            return graph(module, [moved(value) for value in inputs], **kwargs)

    def compiled(module: Any, inputs: Sequence[Any], **kwargs: Any) -> Any:
        from axoc_runtime.trace.cuda_as_cpu import CudaAutocast

        with CudaAutocast():
            return whole(module, inputs, inner_compile=lowered, **kwargs)

    return compiled


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
    return SimpleNamespace(call=program(source.value, graph.constants), __file__="", key="")


class Copies(TorchFunctionMode):
    """A torch without CUDA looks for its device guard in a fake tensor's copy_."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func is torch.Tensor.copy_ else func(*args, **(kwargs or {}))


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
        stack.enter_context(replaced(scheduler, "has_triton", lambda: True))
        stack.enter_context(replaced(_triton, "triton_hash_with_backend", lambda: ""))
        stack.enter_context(replaced(GraphLowering, "compile_to_module", written))
        stack.enter_context(Copies())
        stack.enter_context(config.patch(force_disable_caches=True, compile_threads=1))
        yield
