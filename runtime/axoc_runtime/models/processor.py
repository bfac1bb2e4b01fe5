"""The processor of a model that sees: its image processor, and the job's tokenizer with the chat template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from axoc_runtime.errors import EXIT_ENVIRONMENT, EXIT_INPUTS, RuntimeFailure
from axoc_runtime.job import Job
from axoc_runtime.models.source import source_arguments


def load_processor(job: Job, tokenizer: Any) -> Any:
    """Raises RuntimeFailure where the model brings none, or no chat template that places images."""
    from transformers import AutoProcessor

    arguments = source_arguments(job)
    try:
        processor = AutoProcessor.from_pretrained(**arguments)
    except ImportError as error:
        message = f"the processor of {job.model.id} cannot be loaded: {_first(error)}"
        raise RuntimeFailure(message, EXIT_ENVIRONMENT, "install what it names, or take another model") from error
    except (OSError, ValueError, TypeError) as error:
        fix = "check model.id: its folder needs the processor's files, e.g. processor_config.json"
        message = f"the processor of {job.model.id} cannot be loaded: {_first(error)}"
        raise RuntimeFailure(message, EXIT_INPUTS, fix) from error
    if not hasattr(processor, "image_processor") or getattr(processor, "image_token", None) is None:
        message = f"the processor of {job.model.id} is {type(processor).__name__}, which places no images in text"
        raise RuntimeFailure(message, EXIT_INPUTS, "take a model that transformers has as image-text-to-text")
    return _with(processor, tokenizer, job)


def _with(processor: Any, tokenizer: Any, job: Job) -> Any:
    """The job's tokenizer has the tokens that the spec adds; its padding is masked, so that any token serves."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    processor.tokenizer = tokenizer
    processor.chat_template = job.model.tokenizer.chat_template or processor.chat_template
    if processor.chat_template is None:
        fix = (
            "set model.tokenizer.chat_template: a template whose parts of the type image write the model's image token"
        )
        raise RuntimeFailure(f"the processor of {job.model.id} has no chat template", EXIT_INPUTS, fix)
    return processor


def save_reader(job: Job, tokenizer: Any, folder: Path) -> None:
    """What reads the model's input, beside its weights: the tokenizer, and with it the processor of a model that sees."""
    reader = load_processor(job, tokenizer) if job.model.vision else tokenizer
    reader.save_pretrained(folder)


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
