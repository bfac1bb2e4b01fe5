"""An adapter's input where autocast computes: PEFT casts it to the adapter's dtype, and autocast casts it back.

A bfloat16 input becomes float32 and then bfloat16 again, which is exact and therefore of no use: two kernels a layer, their
gradients' two, and a copy of the input of its own that the adapter's first product keeps for its backward. Left as it comes,
all adapters of one input keep that one, and losses and gradients are the same to the last bit. What stands between both casts
can make it another matter, and then the compiler asks for them (docs/job.md, adapter.casts_inputs).
Source: peft/tuners/tuners_utils.py, _cast_input_dtype; ATen/autocast_mode.h, cached_cast.
"""

from __future__ import annotations

from typing import Any

import torch


def leave_inputs(model: Any) -> None:
    """Under autocast the low-rank pairs of ``model`` take their inputs as they come."""
    from peft.tuners.lora import LoraLayer

    for module in model.modules():
        if isinstance(module, LoraLayer):
            # PEFT's own switch, cast_input_dtype_enabled, knows no autocast: what samples outside of it would fail
            module._cast_input_dtype = cast_unless_autocast


def cast_unless_autocast(value: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    """PEFT's cast, where nothing else would lower the input."""
    if value is None or torch.is_autocast_enabled(value.device.type):
        return value
    return value.to(dtype)
