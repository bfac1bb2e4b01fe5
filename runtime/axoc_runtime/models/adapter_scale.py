"""The factor of an adapter, taken where it costs least: on the few numbers between both matrices.

PEFT multiplies what the pair gives, which is as wide as the layer's output, and the backward multiplies that gradient again and
keeps a second one for it. Between the matrices there are ``rank`` numbers a token. A factor that is a power of two changes no
digit of a floating-point number, so that it may stand before the second product, and before the sums of all gradients: the
results are the same to the last bit. Others would be rounded at another place.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch


def scale_between(model: Any) -> None:
    """Of plain low-rank pairs beside linear layers that are not quantized, in place. Names, merges and what is saved stay."""
    from peft.tuners.lora import Linear

    for layer in model.modules():
        if isinstance(layer, Linear) and not layer.lora_variant:
            layer.forward = MethodType(forward, layer)


def forward(layer: Any, value: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
    """As peft/tuners/lora/layer.py, Linear.forward; what that does beside training one pair is left to it."""
    if layer.disable_adapters or layer.merged or len(layer.active_adapters) != 1 or rest or more:
        return type(layer).forward(layer, value, *rest, **more)  # type: ignore[no-any-return]
    (name,) = layer.active_adapters
    result: torch.Tensor = layer.base_layer(value)
    first, second, factor = layer.lora_A[name], layer.lora_B[name], layer.scaling[name]
    value = layer._cast_input_dtype(value, first.weight.dtype)
    added: torch.Tensor = second(first(layer.lora_dropout[name](value)) * factor)
    return (result + added).to(result.dtype)
