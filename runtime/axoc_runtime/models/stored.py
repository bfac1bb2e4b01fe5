"""Weights that are stored quantized: loaded as they are planned, and made exact where an adapter is merged into them."""

from __future__ import annotations

from typing import Any, Final

import torch

from axoc_runtime.job import Job
from axoc_runtime.models.source import source_arguments

COMPRESSED: Final = "compressed-tensors"
LEFT_OVER: Final = ("weight_scale", "weight_shape", "weight_zero_point", "weight_g_idx", "input_scale", "output_scale")
"""Of a layer that was decompressed: parameters that nothing computes with any more."""


def stored_by(job: Job) -> str | None:
    """What reads the model's files; None where the weights are exact."""
    arguments = source_arguments(job)
    if "gguf_file" in arguments:
        return None
    from transformers import PretrainedConfig

    name = arguments["pretrained_model_name_or_path"]
    try:
        values, _ = PretrainedConfig.get_config_dict(name, revision=arguments.get("revision"))
    except OSError:  # from_pretrained, which is next, says what is wrong
        return None
    found = values.get("quantization_config")
    return None if not found else str(found.get("quant_method", "bitsandbytes"))


def loading(job: Job) -> dict[str, Any]:
    """Further arguments of from_pretrained: what compressed-tensors packed is decompressed while it is loaded."""
    if stored_by(job) != COMPRESSED:
        return {}
    from transformers import CompressedTensorsConfig

    return {"quantization_config": CompressedTensorsConfig(dequantize=True)}


def as_planned(job: Job, model: Any) -> Any:
    """A model that was loaded, with exact weights where the job asks for them, and 4-bit ones computed in the job's dtype:
    files name their own, float32 where whoever wrote them gave none."""
    if stored_by(job) == COMPRESSED:  # the model itself no longer says so
        return _plain(model)
    method = getattr(model, "quantization_method", None)
    if method is not None and job.model.quantization is None:
        return _saveable(model.dequantize())
    if method is not None and job.model.quantization is not None and job.model.quantization.method != "int8":
        _compute_in(model, torch.bfloat16 if job.distributed.autocast == "bf16" else torch.float16)
    return model


def _plain(model: Any) -> Any:
    """Linear layers of torch: no rounding of inputs, which adapters would be trained around, nor scales beside weights."""
    for layer in model.modules():
        kept = [name for name in LEFT_OVER if name in layer._parameters]
        for name in kept:
            del layer._parameters[name]
        if kept or hasattr(layer, "quantization_scheme"):
            layer.__dict__.pop("forward", None)
            layer.__dict__.pop("quantization_scheme", None)
    return _exact(model)


def _saveable(model: Any) -> Any:
    """transformers would turn the weights back into what they were loaded from, which it cannot."""
    kept = getattr(model, "_weight_conversions", None)
    if kept is not None:
        model._weight_conversions = [c for c in kept if _reversible(c)]
    return _exact(model)


def _reversible(conversion: Any) -> bool:
    try:
        conversion.reverse_transform()
    except NotImplementedError:
        return False
    return True


def _exact(model: Any) -> Any:
    """As a model that was never quantized: moved, saved and trained like any other."""
    for name in ("hf_quantizer", "quantization_method", "is_quantized", "is_loaded_in_4bit", "is_loaded_in_8bit"):
        if name in model.__dict__:
            delattr(model, name)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model


def _compute_in(model: Any, dtype: torch.dtype) -> None:
    for layer in model.modules():
        if hasattr(layer, "compute_dtype"):
            layer.compute_dtype = dtype
