"""Linear layers of the blocks whose three products are computed in float8: ``mixed_precision: fp8``.

Activations and weights are cast to e4m3 and gradients to e5m2, each tensor with one scale that is taken from its own largest
value when it is cast (dynamic scaling): nothing of it is kept from step to step, exchanged between ranks or saved. Weights
stay what they are, under their names. Casts are pointwise operations that compiled blocks fuse with what lies around them.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch.nn import functional

from axoc_runtime.errors import EXIT_ENVIRONMENT, RuntimeFailure
from axoc_runtime.job import Job
from axoc_runtime.models.load import decoder_blocks

E4M3: Final = torch.float8_e4m3fn
E5M2: Final = torch.float8_e5m2
MULTIPLE: Final = 16
"""Elements: rows of a float8 matrix start at multiples of 16 bytes (cuBLAS's data alignment for float8)."""
LEAST: Final = 1e-12
"""Of a largest value: a tensor of zeros has a scale as well."""
APART: Final = frozenset({"lora_A", "lora_B", "gate", "router", "shared_expert_gate"})
"""Names of an adapter's matrices and of routers."""
WEIGHT_GRADIENTS = True
"""Whether those are products in float8 too. benchmarks/packed_step.py tries it without: both of their factors have to be laid
out anew, by columns, which may take longer than the product gains."""
HARDWARE: Final = (8, 9)
"""Compute capability of the first NVIDIA GPUs that multiply float8 (Ada; Hopper is 9.0)."""


class Float8Linear(torch.nn.Linear):
    """A linear layer by another class: weights, names, hooks and what a state dict holds stay as they were."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        kind = input.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else input.dtype
        rows = input.to(dtype).reshape(-1, self.in_features)
        with torch.autocast(kind, enabled=False):
            made: torch.Tensor = _Product.apply(rows, self.weight)  # type: ignore[no-untyped-call]
            if self.bias is not None:
                made = made + self.bias.to(dtype)
        return made.reshape(*input.shape[:-1], self.out_features)


def use_float8(job: Job, model: Any) -> None:
    """Before blocks are compiled or sharded, and after an adapter has been put beside them. Raises RuntimeFailure on a GPU
    that has no such products."""
    if job.distributed.device == "cuda" and torch.cuda.get_device_capability() < HARDWARE:
        message = f"{torch.cuda.get_device_name()} does not multiply float8"
        raise RuntimeFailure(message, EXIT_ENVIRONMENT, "plan again with distributed.mixed_precision: bf16")
    for layer in float8_layers(job, model):
        layer.__class__ = Float8Linear


def float8_layers(job: Job, model: Any) -> list[Any]:
    """What is to compute in float8: the blocks' plain linear layers, the frozen ones beside an adapter among them. Left out
    are the adapter's own (too narrow to gain), routers (their choice is to be exact) and experts that are no linear layers."""
    blocks = decoder_blocks(job, model)
    return [layer for block in blocks for name, layer in block.named_modules() if _chosen(name, layer)]


def _chosen(name: str, layer: Any) -> bool:
    """By exact class: a kind of its own may compute something else."""
    if type(layer) not in (torch.nn.Linear, Float8Linear) or not APART.isdisjoint(name.split(".")):
        return False
    return bool(layer.in_features % MULTIPLE == 0 and layer.out_features % MULTIPLE == 0)


class _Product(torch.autograd.Function):
    """rows [m, k] times weight [n, k] transposed. The second factor of a float8 product lies in memory by columns."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        scale, weight_scale = scale_of(rows, E4M3), scale_of(weight, E4M3)
        low = lowered(rows, scale, E4M3)
        kept = low if WEIGHT_GRADIENTS else rows
        ctx.save_for_backward(kept if ctx.needs_input_grad[1] else None, scale, weight, weight_scale)
        return _multiplied(low, lowered(weight, weight_scale, E4M3), scale, weight_scale, rows.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        kept, scale, weight, weight_scale = ctx.saved_tensors
        gradient, of_rows, of_weight = gradients[0], None, None
        gradient_scale = scale_of(gradient, E5M2)
        below = lowered(gradient, gradient_scale, E5M2)
        if ctx.needs_input_grad[0]:
            turned = lowered(weight.t(), weight_scale, E4M3).contiguous()
            of_rows = _multiplied(below, turned, gradient_scale, weight_scale, gradient.dtype)
        if ctx.needs_input_grad[1] and not WEIGHT_GRADIENTS:
            of_weight = (gradient.t() @ kept).to(weight.dtype)
        elif ctx.needs_input_grad[1]:
            left, right = _by_columns(below), _by_columns(kept)
            of_weight = _multiplied(left, right, gradient_scale, scale, weight.dtype)
        return of_rows, of_weight


def scale_of(values: torch.Tensor, kind: torch.dtype) -> torch.Tensor:
    """What a float8 value is multiplied with, so that the largest one is the largest that the kind has."""
    by_row = values.abs().amax(-1)  # in the kernel that makes the rows, where that is a norm
    return by_row.amax().float().clamp(min=LEAST) / torch.finfo(kind).max


def lowered(values: torch.Tensor, scale: torch.Tensor, kind: torch.dtype) -> torch.Tensor:
    """Rounding may pass the largest value, and e4m3 has no infinity to become."""
    most = torch.finfo(kind).max
    return (values.float() / scale).clamp(-most, most).to(kind)


def _by_columns(values: torch.Tensor) -> torch.Tensor:
    """[m, n] as [n, m], a row of m elements filled up with zeros, which add nothing to a sum over m."""
    missing = -values.shape[0] % MULTIPLE
    if missing:
        values = functional.pad(values, (0, 0, 0, missing))
    return values.t().contiguous()


def _multiplied(
    left: torch.Tensor, right: torch.Tensor, one: torch.Tensor, other: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """[m, k] times [n, k] transposed, accumulated exactly (no use_fast_accum: about 14 bits on Hopper)."""
    return torch._scaled_mm(left, right.t(), scale_a=one, scale_b=other, out_dtype=dtype)
