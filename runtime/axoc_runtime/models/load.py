"""The model of a job: weights in the planned dtype, attention, quantization, checkpointing and adapter."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from axoc_runtime.errors import EXIT_ENVIRONMENT, EXIT_INPUTS, RuntimeFailure
from axoc_runtime.job import Job
from axoc_runtime.models import stored
from axoc_runtime.models.adapter import add_adapter
from axoc_runtime.models.architecture import attention_of, blocks_of, unknown
from axoc_runtime.models.cache import leave_cache_off
from axoc_runtime.models.recompute import recomputed
from axoc_runtime.models.source import source_arguments
from axoc_runtime.models.vocabulary import grow_vocabulary
from axoc_runtime.objectives.registry import objective_of

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_base(job: Job, device: torch.device) -> PreTrainedModel:
    """Base weights on the host, or, where quantized, on ``device``: bitsandbytes quantizes while it moves."""
    arguments = source_arguments(job) | {
        "dtype": DTYPES[job.model.dtype],
        "attn_implementation": attention_of(job),
        "use_safetensors": True,  # never a pickle from outside
    }
    if "gguf_file" in arguments:
        del arguments["use_safetensors"]
    if job.model.quantization is not None:
        arguments |= {"quantization_config": quantization_config(job), "device_map": {"": device}}
    try:
        model = model_class(job).from_pretrained(**arguments | stored.loading(job) | _head(job))
    except ImportError as error:
        raise RuntimeFailure(
            f"the model {job.model.id} cannot be loaded: {first_line(error)}", EXIT_ENVIRONMENT
        ) from error
    except (OSError, ValueError) as error:
        fix = "check model.id: a local folder with config.json and safetensors, or a hub id that this machine can reach"
        raise RuntimeFailure(
            f"the model {job.model.id} cannot be loaded: {first_line(error)}", EXIT_INPUTS, fix
        ) from error
    model = stored.as_planned(job, model)
    grow_vocabulary(job, model)
    leave_cache_off(model)
    return model


def model_class(job: Job) -> Any:
    if job.model.vision:
        return AutoModelForImageTextToText
    return AutoModelForCausalLM if objective_of(job).answers else AutoModelForSequenceClassification


def _head(job: Job) -> dict[str, Any]:
    """A reward model has a head of one output in the place of the vocabulary's, drawn by the seed."""
    return {} if objective_of(job).answers else {"num_labels": 1}


def quantization_config(job: Job) -> Any:
    from transformers import BitsAndBytesConfig

    quantization = job.model.quantization
    assert quantization is not None
    if quantization.method == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization.method,
        bnb_4bit_use_double_quant=quantization.double_quantization,
        bnb_4bit_compute_dtype=torch.bfloat16 if job.distributed.autocast == "bf16" else torch.float16,
    )


def load_trainable(job: Job, device: torch.device) -> Any:
    """The model to be trained: the base, or the base with a fresh adapter."""
    model: Any = load_base(job, device)
    checkpointed = job.training.gradient_checkpointing != "none"
    if job.model.quantization is not None:
        from peft import prepare_model_for_kbit_training

        model = prepare_model_for_kbit_training(
            model, use_gradient_checkpointing=checkpointed, gradient_checkpointing_kwargs={"use_reentrant": False}
        )
    if job.model.vision:
        freeze_sight(model)
    if job.adapter is not None:
        model = add_adapter(job, model)
    if job.distributed.tensor_parallel > 1:
        from axoc_runtime.strategies.mesh import mesh_of
        from axoc_runtime.strategies.tensor import split_layers

        split_layers(model, mesh_of(job)["tp"])
    return model


def freeze_sight(model: Any) -> None:
    """The part that sees, and what carries its output into the language model: they stay as they are."""
    trained = {id(p) for p in (*model.get_decoder().parameters(), *model.get_output_embeddings().parameters())}
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.requires_grad and id(parameter) in trained)


def set_checkpointing(job: Job, model: Any) -> None:
    """Recompute the planned blocks. Non-reentrant: the other kind breaks DDP with adapters (trl issue 921) and partly
    frozen models."""
    if job.training.gradient_checkpointing == "none":
        return
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    blocks = decoder_blocks(job, model)
    if job.model.vision:  # nothing of the part that sees is kept for a backward
        for module in model.modules():
            if hasattr(module, "gradient_checkpointing"):
                module.gradient_checkpointing = False
    planned = recomputed(job, blocks)
    for index, block in enumerate(blocks):
        block.gradient_checkpointing = index in planned


def decoder_blocks(job: Job, model: Any) -> list[Any]:
    """The model's repeated blocks, in order, by the class name the plan gives; found in the model where it can give none."""
    if unknown(job):
        return blocks_of(model)
    return [
        m for m in model.modules() if type(m).__name__ in (job.model.decoder_block, "FSDP" + job.model.decoder_block)
    ]


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
