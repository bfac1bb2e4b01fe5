"""The trained weights, whole, from any strategy. Runs on every rank; rank 0 writes."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from axoc_runtime.files import whole_folder
from axoc_runtime.job import Job
from axoc_runtime.models.adapter import restore_base
from axoc_runtime.models.cache import own_cache
from axoc_runtime.models.processor import save_reader
from axoc_runtime.strategies import rank


def save_trained(job: Job, trainer: Any, tokenizer: Any) -> Path:
    """An adapter into ``adapter/``, a whole model into ``final/``; safetensors and the tokenizer."""
    state = full_state(job, trainer)
    target = job.output / ("adapter" if job.adapter is not None else "final")
    if rank() == 0:
        model = trainer.accelerator.unwrap_model(trainer.model_wrapped)
        with whole_folder(target) as fresh:
            with own_cache(model) if job.adapter is None else nullcontext():
                model.save_pretrained(fresh, state_dict=state)
            if hasattr(model, "axoc_initial"):
                restore_base(fresh, model.axoc_initial)
            save_reader(job, tokenizer, fresh)
    trainer.accelerator.wait_for_everyone()
    return target


def full_state(job: Job, trainer: Any) -> dict[str, Any] | None:
    """All weights on rank 0. None: the model in hand is whole already."""
    strategy = job.distributed.strategy
    if strategy == "zero3":
        engine = trainer.model_wrapped
        gathered: dict[str, Any] = engine._zero3_consolidated_16bit_state_dict(
            exclude_frozen_parameters=job.adapter is not None
        )
        return gathered
    if strategy == "fsdp":
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        return dict(get_model_state_dict(trainer.model, options=options))
    return None
