"""Hugging Face's layout with bitsandbytes' weights: transformers loads it as it is stored, and trains adapters beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from axoc_runtime.exports.source import Source

METHODS: Final = ("nf4", "fp4", "llm_int8")
"""4 bits by the quantiles of a normal distribution, or as floats; 8 bits with outlier columns in 16 (LLM.int8())."""


def write_quantized(source: Source, folder: Path, method: str) -> None:
    """All linear layers but the head, in 16 bits what is left. Quantized where the model lies: on a GPU where there is one."""
    import torch
    from transformers import AutoModelForCausalLM

    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    options = {"dtype": _dtype(source), "device_map": {"": device}, "use_safetensors": True}
    model = AutoModelForCausalLM.from_pretrained(source.model, quantization_config=config_of(method), **options)
    model.save_pretrained(folder)
    source.tokenizer.save_pretrained(folder)


def load_quantized(folder: Path) -> Any:
    """As it is stored; computed in fp32, which tells the rounding of the weights from that of the products."""
    import torch
    from transformers import AutoModelForCausalLM

    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    options = {"dtype": torch.float32, "device_map": {"": device}, "use_safetensors": True}
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", **options).eval()


def config_of(method: str) -> Any:
    import torch
    from transformers import BitsAndBytesConfig

    if method == "llm_int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=method,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def _dtype(source: Source) -> Any:
    import torch

    return getattr(torch, source.dtype) if source.dtype in ("float16", "bfloat16") else torch.bfloat16
