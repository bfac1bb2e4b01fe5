"""Liger's kernels as they allocate: Triton is not needed to count bytes, so functions of the same storages stand in.

Sources: liger_kernel 0.8.5 ops/rms_norm.py, ops/swiglu.py, ops/geglu.py, ops/rope.py, ops/fused_linear_cross_entropy.py;
which modules it patches: transformers/monkey_patch.py.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any, Final

import torch
from torch.nn import functional

from axoc_runtime.trace.device import Device
from axoc_runtime.trace.launches import note
from axoc_runtime.trace.liger_loss import fused_loss
from axoc_runtime.trace.patching import replaced

NOT_IN_PLACE: Final = ("Gemma2", "Gemma3", "Olmo2", "Olmo3", "Glm4")
"""Families whose norms may not write the gradient over its input (transformers/rms_norm.py, in_place=False)."""


class Norm(torch.autograd.Function):
    """RMSNorm: saves its input as it came and a number a row."""

    @staticmethod
    def forward(ctx: Any, value: Any, weight: Any, in_place: bool, multiprocessors: int) -> Any:
        value = value.contiguous()
        ctx.in_place, ctx.multiprocessors = in_place, multiprocessors
        result = torch.empty_like(value)
        note("liger.norm", value)
        ctx.save_for_backward(value, weight, torch.empty(value.shape[:-1], dtype=torch.float32))
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        gradient = gradients[0].contiguous()
        weight = ctx.saved_tensors[1]
        note("liger.norm_backward", gradient, ctx.needs_input_grad[1])
        parts = torch.empty((ctx.multiprocessors, weight.shape[0])) if ctx.needs_input_grad[1] else None
        result = gradient if ctx.in_place else torch.zeros_like(gradient)
        return result, None if parts is None else parts.sum(dim=0).to(weight.dtype), None, None


class GatedProduct(torch.autograd.Function):
    """act(gate) * up: saves both, and writes their gradients over them."""

    @staticmethod
    def forward(ctx: Any, gate: Any, up: Any) -> Any:
        gate, up = gate.contiguous(), up.contiguous()
        ctx.save_for_backward(gate, up)
        note("liger.gated", gate)
        return torch.empty_like(gate)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        gradient = gradients[0].contiguous()
        note("liger.gated_backward", gradient)
        return ctx.saved_tensors


class Rotation(torch.autograd.Function):
    """Rotary positions, written over queries and keys, and over their gradients."""

    @staticmethod
    def forward(ctx: Any, query: Any, key: Any, cos: Any, sin: Any) -> Any:
        ctx.save_for_backward(cos, sin)
        note_rotation(query, key)
        return rotated(query), rotated(key)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        note_rotation(gradients[0], gradients[1])
        return rotated(gradients[0]), rotated(gradients[1]), None, None


def note_rotation(*turned: Any) -> None:
    """One kernel, of which each tensor is a half: as a launch of each, the seconds of a launch were found so."""
    for value in turned:
        note("liger.rotation", value)


def rotated(value: Any) -> Any:
    """Heads and tokens are swapped in storage: contiguous there, so nothing is copied as a rule."""
    return value.transpose(1, 2).contiguous().transpose(1, 2)


@contextmanager
def rotations(causal: Any) -> Iterator[None]:
    """Liger's rotary positions in the model's module, for a while: other models come from the same module."""
    modelling = sys.modules[type(causal).__module__]
    if not hasattr(modelling, "apply_rotary_pos_emb"):
        yield
        return
    with replaced(modelling, "apply_rotary_pos_emb", rotation):
        yield


def patch(causal: Any, device: Device, *, loss_alone: bool) -> None:
    """Puts the stand-ins where Liger puts its kernels, in the model given."""
    causal.forward = MethodType(causal_forward, causal)
    if loss_alone:  # as the runtime has it beside compiled blocks (kernels/__init__.py)
        return
    in_place = not type(causal).__name__.startswith(NOT_IN_PLACE)
    for module in causal.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = norm_forward(module, in_place, device.multiprocessors)
        elif hasattr(module, "gate_proj") and hasattr(module, "up_proj") and hasattr(module, "down_proj"):
            module.forward = MethodType(gated_forward, module)
        elif hasattr(module, "gate_up_proj") and hasattr(module, "activation_fn"):
            module.forward = MethodType(split_forward, module)


def rotation(query: Any, key: Any, cos: Any, sin: Any, *args: Any, **kwargs: Any) -> Any:
    return Rotation.apply(query, key, cos, sin)  # type: ignore[no-untyped-call]


def norm_forward(module: Any, in_place: bool, multiprocessors: int) -> Any:
    def forward(value: Any) -> Any:
        return Norm.apply(value, module.weight, in_place, multiprocessors)  # type: ignore[no-untyped-call]

    return forward


def gated_forward(module: Any, value: Any) -> Any:
    product = GatedProduct.apply(module.gate_proj(value), module.up_proj(value))  # type: ignore[no-untyped-call]
    return module.down_proj(product)


def split_forward(module: Any, value: Any) -> Any:
    """Gate and up come side by side; the kernel wants each whole, so they are copied (LigerPhi3SwiGLUMLP)."""
    gate, up = module.gate_up_proj(value).chunk(2, dim=-1)
    return module.down_proj(GatedProduct.apply(gate, up))  # type: ignore[no-untyped-call]


def causal_forward(model: Any, input_ids: Any, labels: Any = None, **kwargs: Any) -> dict[str, Any]:
    """Head and loss in one while training, or where no logits are asked for; else as ever (model/llama.py, lce_forward)."""
    skip_logits = kwargs.pop("skip_logits", model.training)
    count = kwargs.pop("num_items_in_batch", None)
    hidden = getattr(model, model.base_model_prefix)(input_ids=input_ids, **kwargs)[0]
    head = model.get_output_embeddings()
    if not skip_logits:
        logits = head(hidden)
        return {"loss": model.loss_function(logits, labels, vocab_size=logits.shape[-1]), "logits": logits}
    shifted = functional.pad(labels, (0, 1), value=-100)[..., 1:].contiguous().view(-1)
    loss = fused_loss(hidden.view(-1, hidden.shape[-1]), head.weight, shifted)
    return {"loss": loss if count is None else loss / count}
