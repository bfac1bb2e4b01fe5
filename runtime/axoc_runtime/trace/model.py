"""The model of a job from its config.json alone: fake weights in the planned dtype, adapter, checkpointing, kernels."""

from __future__ import annotations

import gc
import json
from dataclasses import replace
from typing import Any, Final

import torch

from axoc_runtime.errors import EXIT_INPUTS, RuntimeFailure
from axoc_runtime.job import Job
from axoc_runtime.kernels.head import use_chunked_loss
from axoc_runtime.models.adapter import add_adapter
from axoc_runtime.models.architecture import unknown
from axoc_runtime.models.load import DTYPES, set_checkpointing
from axoc_runtime.trace import four_bit
from axoc_runtime.trace.compiled import compile_blocks
from axoc_runtime.trace.device import Device
from axoc_runtime.trace.liger import patch
from axoc_runtime.trace.liveness import Liveness
from axoc_runtime.trace.quantized import FOUR_BIT, adapt, quantize, raise_the_rest
from axoc_runtime.trace.varlen import implementation

DEPTH_KEYS: Final = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "decoder_layers", "num_decoder_layers")
"""Names of the number of blocks in a config.json."""
PER_LAYER_KEYS: Final = (
    "layer_types",
    "mlp_layer_types",
    "attention_layers",
    "layers_block_type",
    "hybrid_override_pattern",
)
"""Lists with an entry a block, or texts with a letter for each (Nemotron-H)."""


def depth_of(config: dict[str, Any]) -> int:
    """Number of decoder blocks."""
    part = language_part(config)
    found = next((part[k] for k in DEPTH_KEYS if isinstance(part.get(k), int)), None)
    if found is None:
        found = next((len(part[k]) for k in PER_LAYER_KEYS if part.get(k)), None)
    if found is None:
        message = f"this config.json gives no number of layers: none of {', '.join(DEPTH_KEYS)}"
        raise RuntimeFailure(message, EXIT_INPUTS, "give the config.json of a causal language model")
    return int(found)


def language_part(config: dict[str, Any]) -> dict[str, Any]:
    """Multimodal configs hold the language model's in ``text_config``."""
    part = config.get("text_config")
    return part if isinstance(part, dict) else config


def with_depth(config: dict[str, Any], layers: int) -> dict[str, Any]:
    """The same model with its first ``layers`` blocks."""
    part = dict(language_part(config))
    part.update({k: layers for k in DEPTH_KEYS if k in part})
    part.update({k: part[k][:layers] for k in PER_LAYER_KEYS if isinstance(part.get(k), (list, str))})
    if isinstance(part.get("max_window_layers"), int):
        part["max_window_layers"] = min(part["max_window_layers"], layers)
    return part if part.get("model_type") or "text_config" not in config else {**config, "text_config": part}


def library_config(config: dict[str, Any]) -> Any:
    """The transformers configuration of a config.json."""
    from transformers import CONFIG_MAPPING

    kind = config.get("model_type")
    if kind not in CONFIG_MAPPING:
        message = f"transformers knows no model of type {kind!r}"
        raise RuntimeFailure(message, EXIT_INPUTS, "trace a model that transformers implements itself")
    read = json.loads(json.dumps(config), object_hook=special_float)
    made = CONFIG_MAPPING[kind].from_dict({k: v for k, v in read.items() if k not in ("torch_dtype", "dtype")})
    made.use_cache = False
    return made


def special_float(value: dict[str, Any]) -> Any:
    """transformers writes infinity, which JSON has no number for, as ``{"__float__": "Infinity"}``."""
    return float(value["__float__"]) if value.keys() == {"__float__"} else value


def build(job: Job, config: dict[str, Any], device: Device, live: Liveness, dtype: torch.dtype | None = None) -> Any:
    """The trainable model, as models/load.py makes it from weights, turned into ``dtype`` before it comes to the device
    where one is given. Call it in a fake world."""
    if job.model.quantization is not None and job.adapter is not None and job.adapter.use_dora:
        fix = "set adapter.use_dora: false, or plan without a trace"
        raise RuntimeFailure("DoRA over quantized weights cannot be traced yet", EXIT_INPUTS, fix)
    model = base_model(job, config)
    if job.model.quantization is not None:
        quantize(model, job.model.quantization, compute_dtype(job) or torch.float16, compiled=job.model.compile)
        if four_bits_compiled(job):
            four_bit.follow(live)
    gc.collect()
    live.settle()  # how the weights came is another story: they are read one after the other
    if job.model.quantization is not None:
        raise_the_rest(model)
        live.empty_cache()
    if job.adapter is not None:
        model = add_adapter(_plainly_begun(job), model)
        adapt(model)
    set_checkpointing(job, model)
    if job.model.kernels == "liger":
        patch(causal_model(model), device, loss_alone=job.model.compile)
    if job.model.kernels == "chunked":
        use_chunked_loss(job, model)
    if job.model.compile:
        compile_blocks(job, model)
    if dtype is not None:
        convert(model, dtype)
        live.settle()
    return model.train()


def four_bits_compiled(job: Job) -> bool:
    return job.model.compile and job.model.quantization is not None and job.model.quantization.method in FOUR_BIT


def _plainly_begun(job: Job) -> Job:
    """Matrices are as large whatever they begin as, and fake weights have no principal part."""
    assert job.adapter is not None
    return replace(job, adapter=replace(job.adapter, init="default"))


def convert(model: Any, dtype: torch.dtype) -> None:
    """All parameters in floating point, buffers not."""
    for parameter in model.parameters():
        if parameter.is_floating_point() and parameter.dtype != dtype:
            parameter.data = parameter.data.to(dtype)


def base_model(job: Job, config: dict[str, Any]) -> Any:
    from transformers import AutoModelForCausalLM

    dtype = DTYPES[job.model.dtype]
    torch.set_default_dtype(dtype)
    try:
        made = library_config(config)
        _is_decoder(job, made)
        if job.model.tokenizer.embedding_rows is not None:
            made.get_text_config().vocab_size = job.model.tokenizer.embedding_rows
        return AutoModelForCausalLM.from_config(made, attn_implementation=_attention(job), dtype=dtype)
    finally:
        torch.set_default_dtype(torch.float32)


def _is_decoder(job: Job, config: Any) -> None:
    """Raises RuntimeFailure where preflight would refuse the architecture: what it would answer to tokens tells nothing."""
    if unknown(job):
        from axoc_runtime.preflight.architecture import of_config

        for finding in of_config(job, config):
            raise RuntimeFailure(finding.what, finding.code or EXIT_INPUTS, finding.fix)


def _attention(job: Job) -> str | None:
    name = implementation(job)
    return None if unknown(job) and name == "sdpa" else name


def block_parameters(config: dict[str, Any]) -> int:
    """Parameters of the last block."""
    from transformers import AutoModelForCausalLM

    lead = int(language_part(config).get("first_k_dense_replace") or 0)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(library_config(with_depth(config, lead + 1)))
    return sum(p.numel() for p in blocks(model, lead + 1)[-1].parameters())


def compute_dtype(job: Job) -> torch.dtype | None:
    """What autocast lowers to; None where it is off."""
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(job.distributed.autocast)


def causal_model(model: Any) -> Any:
    """Without PEFT's wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def decoder(model: Any) -> Any:
    """The model below the head. Some name it by a prefix that they do not have (Llama 4's language model)."""
    causal = causal_model(model)
    return getattr(causal, causal.base_model_prefix, causal)


def blocks(model: Any, layers: int) -> Any:
    """The repeated blocks: the decoder's list of that many modules."""
    found = [m for m in decoder(model).modules() if isinstance(m, torch.nn.ModuleList) and len(m) == layers]
    if not found:
        raise RuntimeFailure("the decoder's blocks were not found in this model", EXIT_INPUTS)
    return found[0]
