"""transformers as a consumer: of the trained model, which all formats are compared with, and of folders it reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from axoc_runtime.exports.base import Logits
from axoc_runtime.exports.source import Source

LOADED_BYTES_A_PARAMETER: Final = 4
"""In fp32, which tells a format's own rounding from that of the comparison."""


class Transformers:
    """A folder's model, in fp32 where the host has room for it, else as it is stored."""

    def __init__(self, source: Source, folder: Path, *, note: str = "", model: Any = None) -> None:
        import transformers

        self.model = load(source, folder) if model is None else model
        self.device = next(self.model.parameters()).device
        self.name = f"transformers {transformers.__version__}{note}"

    def logits(self, ids: Sequence[int]) -> Logits:
        with torch.no_grad():
            out = self.model(input_ids=torch.tensor([list(ids)], device=self.device), use_cache=False).logits
        found: Logits = out[0].float().cpu().numpy().astype(np.float32, copy=False)
        return found.reshape(-1, found.shape[-1])


def load(source: Source, folder: Path, **options: Any) -> Any:
    """From safetensors only; on the GPU where there is one and it has room."""
    import transformers

    kind = getattr(transformers, source.kind)
    options = {"dtype": _dtype(source), "attn_implementation": "eager", "use_safetensors": True} | options
    model = kind.from_pretrained(folder, **options)
    return model.to(_device(model)).eval()


def _dtype(source: Source) -> Any:
    from axoc_runtime.preflight import host_memory_available_bytes

    available = host_memory_available_bytes()
    fits = available is None or source.parameters * LOADED_BYTES_A_PARAMETER < available
    return torch.float32 if fits else "auto"


def _device(model: Any) -> torch.device:
    if not torch.cuda.is_available() or torch.cuda.mem_get_info()[0] < 1.2 * model.get_memory_footprint():
        return torch.device("cpu")
    return torch.device("cuda")
