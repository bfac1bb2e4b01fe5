"""Names of dtypes in the profile, as the compiler's: bf16, fp16, fp32, tf32 (fp32 in memory), fp8."""

from __future__ import annotations

from typing import Final

import torch

DTYPES: Final = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
    "tf32": torch.float32,
    "fp8": torch.float8_e4m3fn,
}
