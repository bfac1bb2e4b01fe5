"""The program that Inductor writes for a graph, run without a GPU: it makes and frees buffers in its own order, its kernels
do nothing, and what it calls of ATen is ATen's.

Source: torch/_inductor/codegen/wrapper.py (write_header names what such a program imports).
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from contextlib import nullcontext
from types import CodeType, SimpleNamespace
from typing import Any, Final

import torch

aten = torch.ops.aten


class Torch:
    """torch, but for its CUDA."""

    cuda: Final = SimpleNamespace(_DeviceGuard=lambda index: nullcontext(), set_device=lambda index: None)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


class Kernel:
    """One that Triton would have compiled."""

    @staticmethod
    def run(*args: Any, **kwargs: Any) -> None:
        return None


def reinterpreted(tensor: torch.Tensor, size: Any, stride: Any, offset: int = 0) -> torch.Tensor:
    return torch.as_strided(tensor, size, stride, tensor.storage_offset() + offset)


def made(size: Any, stride: Any, dtype: torch.dtype) -> torch.Tensor:
    return torch.empty_strided(size, stride, dtype=dtype)


def biased(bias: torch.Tensor, one: torch.Tensor, other: torch.Tensor, **kwargs: Any) -> torch.Tensor:
    """_inductor/kernel/mm.py, bias_addmm: a bias that is repeated is given as the one row it is."""
    return torch.addmm(bias[0] if bias.stride(0) == 0 else bias, one, other, **kwargs)


def nothing(*args: Any, **kwargs: Any) -> None:
    return None


EXTERN: Final = SimpleNamespace(mm=torch.mm, addmm=torch.addmm, bmm=torch.bmm, baddbmm=torch.baddbmm, bias_addmm=biased)
NAMES: Final[dict[str, Any]] = {
    "torch": Torch(),
    "aten": aten,
    "math": math,
    "inf": math.inf,
    "nan": math.nan,
    "device": torch.device,
    "extern_kernels": EXTERN,
    "empty_strided": torch.empty_strided,
    "empty_strided_cuda": made,
    "empty_strided_cpu": made,
    "reinterpret_tensor": reinterpreted,
    "assert_size_stride": nothing,
    "assert_alignment": nothing,
    "copy_if_misaligned": lambda tensor: tensor,
    "get_raw_stream": lambda index: 0,
}


def program(source: str, constants: dict[str, Any]) -> Callable[[list[Any]], Any]:
    """The ``call`` of a module that Inductor wrote."""
    found = next(n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef) and n.name == "call")
    given = [a for a in found.args.args if a.arg != "self"]
    found.args.args, found.decorator_list = given, []
    code = compile(ast.fix_missing_locations(ast.Module([found], [])), "<inductor>", "exec")
    names = {name: Kernel() for name in names_of(code) if name.startswith("triton_")} | NAMES | constants
    exec(code, names)
    call: Callable[[list[Any]], Any] = names["call"]
    return call


def names_of(code: CodeType) -> set[str]:
    inner = (c for c in code.co_consts if isinstance(c, CodeType))
    return {*code.co_names, *(name for c in inner for name in names_of(c))}
