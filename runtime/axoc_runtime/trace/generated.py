"""The program that Inductor writes for a graph, run without a GPU: it makes and frees buffers in its own order, its kernels
do nothing, and what it calls of ATen is ATen's. A program is run for each block, pass and micro-batch: once as it is, where launches are
noted, which are the same ones whenever it is run; else without what leaves no trace in memory: kernels, and products but for the
workspace that they ask for.

Source: torch/_inductor/codegen/wrapper.py (write_header names what such a program imports).
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from types import CodeType, SimpleNamespace
from typing import Any, Final

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode, _get_current_dispatch_mode_stack

from axoc_runtime.trace.launches import followed, in_compiled_code, note
from axoc_runtime.trace.liveness import Liveness

aten = torch.ops.aten
PRODUCTS: Final = ("mm", "bmm")
"""Of two matrices into a buffer that is there: all that they ask of memory is cuBLAS's workspace. Those with a bias are run, as
the library they go to depends on its shape."""


class Torch:
    """torch, but for its CUDA."""

    cuda: Final = SimpleNamespace(_DeviceGuard=lambda index: nullcontext(), set_device=lambda index: None)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


class Kernel:
    """One that Triton would have compiled."""

    def __init__(self, num_bytes: float) -> None:
        self.num_bytes = num_bytes

    def run(self, *args: Any, **kwargs: Any) -> None:
        note("triton", self.num_bytes)


def reinterpreted(tensor: torch.Tensor, size: Any, stride: Any, offset: int = 0) -> torch.Tensor:
    return torch.as_strided(tensor, size, stride, tensor.storage_offset() + offset)


def counting() -> Liveness:
    """What counts; torch may have modes of its own above it."""
    top = _get_current_dispatch_mode()
    if isinstance(top, Liveness):
        return top
    return next(mode for mode in reversed(_get_current_dispatch_mode_stack()) if isinstance(mode, Liveness))


def made(size: Any, stride: Any, dtype: torch.dtype) -> torch.Tensor:
    """A buffer."""
    return counting().made(size, stride, dtype)


def product() -> None:
    """What is left of a product in PRODUCTS."""
    live = counting()
    workspaces: Any = live.rules[aten.mm.out]
    workspaces.asked(live, biased=False)


def biased(bias: torch.Tensor, one: torch.Tensor, other: torch.Tensor, **kwargs: Any) -> torch.Tensor:
    """_inductor/kernel/mm.py, bias_addmm: a bias that is repeated is given as the one row it is."""
    return torch.addmm(bias[0] if bias.stride(0) == 0 else bias, one, other, **kwargs)


def nothing(*args: Any, **kwargs: Any) -> None:
    return None


EXTERN: Final = SimpleNamespace(mm=torch.mm, addmm=torch.addmm, bmm=torch.bmm, baddbmm=torch.baddbmm, bias_addmm=biased)
VIEWS: Final = ("reinterpret_tensor", "get_raw_stream")
NAMES: Final[dict[str, Any]] = {
    "torch": Torch(),
    "aten": aten,
    "math": math,
    "inf": math.inf,
    "nan": math.nan,
    "device": torch.device,
    "extern_kernels": EXTERN,
    "product": product,
    "empty_strided": torch.empty_strided,
    "empty_strided_cuda": made,
    "empty_strided_cpu": made,
    "reinterpret_tensor": reinterpreted,
    "assert_size_stride": nothing,
    "assert_alignment": nothing,
    "copy_if_misaligned": lambda tensor: tensor,
    "get_raw_stream": lambda index: 0,
    "start_graph": nothing,
    "end_graph": nothing,
}


def program(source: str, constants: dict[str, Any]) -> Callable[[list[Any]], Any]:
    """The ``call`` of a module that Inductor wrote."""
    found = next(n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef) and n.name == "call")
    given = [a for a in found.args.args if a.arg != "self"]
    found.args.args, found.decorator_list = given, []
    moved = bytes_of(source)
    whole = function(found, moved, constants)
    traceless = function(Traceless().visit(found), moved, constants)

    def call(inputs: list[Any]) -> Any:
        launches = followed()
        if launches is None:
            return traceless(inputs)
        numbers = tuple(value for value in inputs if isinstance(value, int))
        with in_compiled_code():
            return launches.again((whole, numbers), partial(whole, inputs), partial(traceless, inputs))

    call.code = traceless.__code__  # type: ignore[attr-defined]
    return call


def function(found: ast.FunctionDef, moved: dict[str, float], constants: dict[str, Any]) -> Any:
    code = compile(ast.fix_missing_locations(ast.Module([found], [])), "<inductor>", "exec")
    names = {n: Kernel(moved.get(n, 0.0)) for n in names_of(code) if n.startswith("triton_")} | NAMES | constants
    exec(code, names)
    return names["call"]


def bytes_of(source: str) -> dict[str, float]:
    """That each of a module's kernels reads and writes, as Inductor counts them (codegen/simd.py, estimate_kernel_num_bytes)."""
    pieces = re.split(r"^(\w+) = async_compile\.triton\(", source, flags=re.MULTILINE)[1:]
    found = zip(pieces[::2], (re.search(r"'kernel_num_gb': ([0-9.e+-]+)", text) for text in pieces[1::2]), strict=True)
    return {name: float(match[1]) * 1e9 for name, match in found if match}


class Traceless(ast.NodeTransformer):
    """Takes out of a program what leaves no trace in memory."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        call = node.value
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and only_views(call)):
            return node
        owner, name = ast.unparse(call.func.value), call.func.attr
        if owner.startswith("triton_") and name == "run":
            return None
        if owner == "extern_kernels" and name in PRODUCTS and any(k.arg == "out" for k in call.keywords):
            return ast.copy_location(ast.Expr(ast.Call(ast.Name("product", ast.Load()), [], [])), node)
        return node


def only_views(call: ast.Call) -> bool:
    """Nothing among a call's arguments makes memory or frees it."""
    values = [*call.args, *(k.value for k in call.keywords)]
    inner = [n for value in values for n in ast.walk(value)]
    calls = [n for n in inner if isinstance(n, ast.Call)]
    return all(isinstance(n.func, ast.Name) and n.func.id in VIEWS for n in calls) and not any(
        isinstance(n, (ast.NamedExpr, ast.Await, ast.Lambda)) for n in inner
    )


def names_of(code: CodeType) -> set[str]:
    inner = (c for c in code.co_consts if isinstance(c, CodeType))
    return {*code.co_names, *(name for c in inner for name in names_of(c))}
