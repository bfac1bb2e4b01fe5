"""vLLM: Hugging Face's layout in 16 bits, or quantized by llm-compressor in compressed-tensors' layout, which vLLM reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from axoc_runtime.exports.base import NONE, CannotExport, Consumer, Exporter
from axoc_runtime.exports.hugging_face import write_folder
from axoc_runtime.exports.quiet import silent
from axoc_runtime.exports.reference import Transformers, load
from axoc_runtime.exports.source import Source

LARGEST_F16: Final = 65504.0
SCHEMES: Final = {"fp8": "FP8_DYNAMIC", "int8": "W8A8", "gptq": "W4A16", "awq": "W4A16_ASYM"}
"""llm-compressor's names of what each method stores."""
CALIBRATED: Final = ("int8", "gptq", "awq")
GROUPS: Final = (128, 64, 32)
"""Columns that share a scale, coarsest first: vLLM's kernels know these."""


class Vllm(Exporter):
    name = "vllm"
    variants = (NONE, *SCHEMES)

    def packages_of(self, variant: str) -> tuple[str, ...]:
        return () if variant == NONE else ("llmcompressor", "compressed_tensors")

    def refuses(self, source: Source, variant: str) -> str | None:
        if variant in CALIBRATED and not source.calibration:
            return f"{variant} is calibrated on training rows, and this run kept none: ask for vllm:fp8"
        return None

    def write(self, source: Source, folder: Path, variant: str) -> tuple[str, ...]:
        if variant != NONE:
            _quantize(source, folder, variant)
            return (f"{SCHEMES[variant]} in compressed-tensors' layout; vLLM itself was not here to check it.",)
        dtype = _dtype(source)
        write_folder(source, folder, dtype)
        return (f"In {str(dtype).removeprefix('torch.')}; vLLM itself was not here to check it.",)

    def consumer(self, source: Source, folder: Path, variant: str) -> Consumer:
        if variant == NONE:
            return Transformers(source, folder)
        note = f", compressed-tensors {version('compressed-tensors')}"
        return Transformers(source, folder, note=note, model=load(source, folder, dtype="auto"))

    def usage(self, source: Source, variant: str) -> str:
        return "vllm serve ."


def _dtype(source: Source) -> Any:
    """The stored one where it has 16 bits; else float16, which rounds less than bfloat16, where its range is enough."""
    import torch
    from safetensors import safe_open

    if source.dtype in ("float16", "bfloat16"):
        return getattr(torch, source.dtype)
    for file in sorted(source.model.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            if any(opened.get_tensor(name).abs().max() > LARGEST_F16 for name in opened.keys()):  # noqa: SIM118 # no mapping
                return torch.bfloat16
    return torch.float16


def _calibrated_in(source: Source) -> Any:
    """bfloat16 for weights in float32: AWQ sums squared differences of activations, which leave float16's range in small
    models already."""
    import torch

    return torch.float16 if source.dtype == "float16" else torch.bfloat16


def _quantize(source: Source, folder: Path, variant: str) -> None:
    """One pass of llm-compressor over all linear layers but the head. Raises CannotExport."""
    from datasets import Dataset
    from llmcompressor import oneshot
    from loguru import logger

    logger.disable("llmcompressor")
    logger.disable("compressed_tensors")
    model = load(source, source.model, dtype=_calibrated_in(source), attn_implementation=None)
    if not _columns(model):
        message = f"llm-compressor quantizes linear layers, and {source.architecture} has none"
        raise CannotExport(message, "ask for vllm without a quantization")
    rows = [{"input_ids": list(ids), "attention_mask": [1] * len(ids)} for ids in source.calibration]
    calibration = {"dataset": Dataset.from_list(rows), "num_calibration_samples": len(rows)} if rows else {}
    try:
        with silent(), _pageable():
            oneshot(
                model=model,
                recipe=_recipe(model, variant),
                output_dir=str(folder),
                processor=source.tokenizer,
                log_dir=None,
                **(calibration if variant in CALIBRATED else {}),
            )
    except (ValueError, NotImplementedError, KeyError) as error:
        message = f"llm-compressor cannot quantize this model with {variant}: {str(error).splitlines()[0]}"
        raise CannotExport(message, "ask for vllm:fp8, or for vllm without a quantization") from error


@contextmanager
def _pageable() -> Iterator[None]:
    """AWQ pins what it caches, for copies to a GPU (llmcompressor/modifiers/transform/awq/base.py, _apply_smoothing), and
    torch can pin nothing where there is none: it is all that keeps AWQ from a CPU."""
    import torch
    from llmcompressor.pipelines.cache import IntermediatesCache

    pinning = IntermediatesCache.pin_memory
    try:
        if not torch.accelerator.is_available():
            IntermediatesCache.pin_memory = lambda *_: None
        yield
    finally:
        IntermediatesCache.pin_memory = pinning


def _recipe(model: Any, variant: str) -> Any:
    from compressed_tensors.quantization import preset_name_to_scheme
    from llmcompressor.modifiers.awq import AWQModifier
    from llmcompressor.modifiers.quantization import GPTQModifier, QuantizationModifier

    scheme = preset_name_to_scheme(SCHEMES[variant], ["Linear"])
    if variant in ("gptq", "awq"):
        assert scheme.weights is not None
        scheme.weights.group_size = _group(model)
    kinds: dict[str, Any] = {"gptq": GPTQModifier, "awq": AWQModifier}
    return kinds.get(variant, QuantizationModifier)(config_groups={"group_0": scheme}, ignore=["lm_head"])


def _columns(model: Any) -> set[int]:
    """Of the linear layers that are quantized."""
    import torch

    return {m.in_features for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"}


def _group(model: Any) -> int:
    """The coarsest that divides the columns of every linear layer. Raises CannotExport."""
    columns = _columns(model)
    found = next((g for g in GROUPS if not any(c % g for c in columns)), None)
    if found is None:
        message = f"no group of {', '.join(map(str, GROUPS))} columns divides all of {sorted(columns)}"
        raise CannotExport(message, "ask for vllm:fp8")
    return found
