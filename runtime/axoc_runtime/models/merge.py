"""An adapter into the exact (never the quantized) base weights, kept only where the saved model computes the same."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch

from axoc_runtime.errors import EXIT_EXPORT, RuntimeFailure
from axoc_runtime.files import whole_folder
from axoc_runtime.job import Job
from axoc_runtime.models.architecture import attention_of
from axoc_runtime.models.cache import own_cache
from axoc_runtime.models.load import DTYPES, load_base, model_class
from axoc_runtime.models.processor import save_reader

MERGE_TOLERANCE: Final = {"float32": 1e-3, "bfloat16": 5e-2, "float16": 1e-2}
"""Largest relative difference of logits, in the Frobenius norm: rounding of the merged weights in their dtype."""
PROBE: Final = "The quick brown fox jumps over the lazy dog, 1 + 2 = 3, and what was asked is answered."
FIX: Final = "keep adapter/, which is whole, and load it beside the base with peft; model.dtype: float32 merges exactly"


def merge(job: Job) -> None:
    """Leaves ``final/``. Raises RuntimeFailure, and leaves no ``final/``, where the merged model would be another one."""
    from axoc_runtime.models.tokenizer import load_tokenizer

    tokenizer, final = load_tokenizer(job), job.output / "final"
    try:
        with whole_folder(final) as fresh:
            unmerged = _merge_into(job, tokenizer, fresh)
            save_reader(job, tokenizer, fresh)
            check_merge(unmerged, _logits(_saved(job, fresh), _probe(job, tokenizer)), job.model.dtype)
    except RuntimeFailure:
        shutil.rmtree(final, ignore_errors=True)  # of an earlier run
        raise


def check_merge(unmerged: Any, merged: Any, dtype: str) -> None:
    difference = float((unmerged - merged).norm() / unmerged.norm())
    if not difference <= MERGE_TOLERANCE[dtype]:  # of what is no number too
        bound = f"{MERGE_TOLERANCE[dtype]:.1%} are allowed in {dtype}"
        message = f"not merged: the merged model's logits differ from the adapter's by {difference:.2%}, {bound}"
        raise RuntimeFailure(message, EXIT_EXPORT, FIX)


def _merge_into(job: Job, tokenizer: Any, folder: Path) -> torch.Tensor:
    """Returns the logits before. The model is let go of, so that one is in memory at a time."""
    from peft import PeftModel

    model: Any = PeftModel.from_pretrained(load_base(_exact(job), torch.device("cpu")), str(job.output / "adapter"))
    before = _logits(model.eval(), _probe(job, tokenizer))
    try:
        merged = model.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise RuntimeFailure(f"not merged: {error}", EXIT_EXPORT, FIX) from error
    with own_cache(merged):
        merged.save_pretrained(folder)
    return before


def _exact(job: Job) -> Job:
    return replace(job, model=replace(job.model, quantization=None, attention="sdpa"))


def _saved(job: Job, folder: Path) -> Any:
    kind, attention = model_class(job), attention_of(_exact(job))
    model = kind.from_pretrained(folder, dtype=DTYPES[job.model.dtype], attn_implementation=attention).eval()
    model.config.use_cache = False  # as the other had: caches of state-space models are kept for each step apart
    return model


def _probe(job: Job, tokenizer: Any) -> torch.Tensor:
    """A sentence, and the tokens that the spec adds."""
    text = " ".join([PROBE, *job.model.tokenizer.added_tokens])
    return torch.tensor([tokenizer(text)["input_ids"]])


@torch.no_grad()
def _logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=ids).logits.float()
    return found
