"""A quantized folder with its consumer: transformers as a user would load it, else the format's own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

from axoc_runtime.exports.base import CannotExport, Consumer, NotChecked
from axoc_runtime.exports.registry import exporter
from axoc_runtime.exports.source import Source
from axoc_runtime.quantize.methods import TRANSFORMERS, Method

FP8_CAPABILITY: Final = (8, 9)
"""Of the first NVIDIA GPUs that multiply in fp8."""
DECOMPRESSED: Final = "transformers decompresses it at the first pass: memory and speed are those of 16 bits or worse; vLLM keeps it packed"


@runtime_checkable
class Generator(Protocol):
    def generate(self, ids: Sequence[int], count: int) -> list[int]:
        """``count`` further tokens, each the most likely one."""


@runtime_checkable
class Timed(Protocol):
    computing_seconds: float
    """Of the last logits, without their way to the host: a GPU computes those of 128,000 tokens faster than it hands them
    over, and no server does that."""


def runner(source: Source, folder: Path, method: Method, gpus: int) -> Consumer:
    """Raises CannotExport where nothing on this machine reads it."""
    if method.format in TRANSFORMERS:
        return _Transformers(source, folder, gpus)
    found = exporter(method.format).consumer(source, folder, method.variant)
    if isinstance(found, NotChecked):
        raise CannotExport(f"nothing here reads it: {found.reason}")
    return found


def on_gpu(method: Method, gpus: int) -> bool:
    """Other formats' consumers are CPU builds (docs/exports.md)."""
    return gpus > 0 and method.format in TRANSFORMERS


def note(method: Method, gpus: int) -> str | None:
    """What a reader of the figures must know."""
    if method.format == "vllm" and not (method.variant == "fp8" and gpus and _multiplies_fp8()):
        return DECOMPRESSED
    if gpus and not on_gpu(method, gpus):
        return "its consumer is a CPU build: memory and speed are of the host"
    return None


def _multiplies_fp8() -> bool:
    import torch

    return torch.cuda.is_available() and torch.cuda.get_device_capability() >= FP8_CAPABILITY


class _Transformers:
    """Computes in the stored 16-bit type on a GPU; in fp32 on a CPU, which multiplies no others fast."""

    def __init__(self, source: Source, folder: Path, gpus: int) -> None:
        import torch
        import transformers

        options: dict[str, Any] = {"device_map": "auto" if gpus > 1 else {"": "cuda:0" if gpus else "cpu"}}
        if config := _stored(folder):
            options |= _loading(config)
        options = {"dtype": getattr(torch, compute_dtype(source, gpus)), "attn_implementation": None} | options
        kind = transformers.AutoModelForCausalLM
        self.model: Any = kind.from_pretrained(folder, use_safetensors=True, **options).eval()
        self.name = f"transformers {transformers.__version__}"
        self.computing_seconds = 0.0

    def logits(self, ids: Sequence[int]) -> Any:
        """[tokens, vocabulary] in fp32, on the host."""
        import torch

        given = self._ids(ids)
        began = time.perf_counter()
        with torch.no_grad():
            found = self.model(input_ids=given, use_cache=False).logits[0]
        if found.is_cuda:
            torch.cuda.synchronize(found.device)
        self.computing_seconds = time.perf_counter() - began
        return found.float().cpu().numpy()

    def generate(self, ids: Sequence[int], count: int) -> list[int]:
        import torch

        given = self._ids(ids)
        with torch.no_grad():
            made = self.model.generate(
                given,
                attention_mask=torch.ones_like(given),
                max_new_tokens=count,
                min_new_tokens=count,
                do_sample=False,
                pad_token_id=0,
            )
        return [int(i) for i in made[0, len(ids) :]]

    def _ids(self, ids: Sequence[int]) -> Any:
        import torch

        return torch.tensor([list(ids)], device=next(self.model.parameters()).device)


def compute_dtype(source: Source, gpus: int) -> str:
    if not gpus:
        return "float32"
    return source.dtype if source.dtype in ("float16", "bfloat16") else "bfloat16"


def _stored(folder: Path) -> Any:
    import json

    return json.loads((folder / "config.json").read_text(encoding="utf-8")).get("quantization_config")


def _loading(config: Any) -> dict[str, Any]:
    """Kernels for what is stored, where transformers has them: fp8 on GPUs that multiply it."""
    import torch

    if config.get("quant_method") != "compressed-tensors" or not _multiplies_fp8():
        return {}
    from transformers import CompressedTensorsConfig

    options: dict[str, Any] = {"quantization_config": CompressedTensorsConfig(use_optimized_inference=True)}
    return options | (
        {"dtype": torch.bfloat16} if _fp8(config) else {}
    )  # the kernels' one result of rows with own scales


def _fp8(config: Any) -> bool:
    weights = [group.get("weights") or {} for group in config.get("config_groups", {}).values()]
    return any((w.get("type"), w.get("num_bits")) == ("float", 8) for w in weights)
