"""Greedy answers of a model: for the spec's sample questions and for ROUGE. One process, after training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from axoc_runtime.job import Job


def load_to_answer(job: Job, trained: Path | None) -> Any:
    """The base (None) as it was trained on, or a folder's model, on the job's device, or spread where that is too small."""
    from axoc_runtime.models.load import DTYPES, load_base, model_class

    device = torch.device("cuda" if job.distributed.device == "cuda" and torch.cuda.is_available() else "cpu")
    if trained is None:
        model: Any = load_base(job, device)
    else:
        model = model_class(job).from_pretrained(trained, dtype=DTYPES[job.model.dtype])
    model.config.use_cache = True
    if getattr(model, "quantization_method", None) is None:
        model = model.to(device) if device.type == "cpu" else spread(model, device, cache_bytes(job, model.config))
    return model.eval()


def spread(model: Any, device: torch.device, kept_free_bytes: int) -> Any:
    """On ``device`` where it fits; else over all devices of this host and its memory: a model that was trained in shards, or
    in four bits, may be larger than one device."""
    free = {i: torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count())}
    if model.get_memory_footprint() + kept_free_bytes <= free[0]:
        return model.to(device)
    from accelerate import dispatch_model, infer_auto_device_map

    from axoc_runtime.preflight import host_memory_available_bytes

    limits: dict[int | str, int] = {i: max(room - kept_free_bytes, 0) for i, room in free.items()}
    limits["cpu"] = host_memory_available_bytes() or model.get_memory_footprint()
    whole = list(getattr(model, "_no_split_modules", None) or [])
    return dispatch_model(model, infer_auto_device_map(model, max_memory=limits, no_split_module_classes=whole))


def tokens_at_once(job: Job) -> int:
    """Of all sequences together: those of a training micro-batch, whose forward pass fitted."""
    return job.training.micro_batch_size * max(d.max_seq_length for d in job.datasets)


def cache_bytes(job: Job, config: Any) -> int:
    """Keys and values of ``tokens_at_once`` in every layer, and as much again for the pass over the prompts."""
    config = config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    size = 4 if job.model.dtype == "float32" else 2
    return 2 * 2 * int(config.num_hidden_layers * heads * width * size * tokens_at_once(job))


def answers(
    model: Any, tokenizer: Any, prompts: list[list[int]], *, max_new_tokens: int, at_once: int, ends: frozenset[int]
) -> list[list[int]]:
    """Token ids that the model goes on with, greedily, in the prompts' order. ``at_once`` tokens are held together; an answer
    ends at one of ``ends``, which is left out, or after ``max_new_tokens``."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]), reverse=True)
    found: dict[int, list[int]] = {}
    while order:
        rows = max(at_once // (len(prompts[order[0]]) + max_new_tokens), 1)
        batch, order = order[:rows], order[rows:]
        made = _batch(model, tokenizer, [prompts[i] for i in batch], max_new_tokens, sorted(ends))
        found |= dict(zip(batch, (_until(row, ends) for row in made), strict=True))
    return [found[i] for i in range(len(prompts))]


def ends_of(model: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens that end an answer: the model's own list, and the tokenizer's end."""
    named = getattr(model.generation_config, "eos_token_id", None)
    ids = named if isinstance(named, list) else [named]
    return frozenset(int(i) for i in [*ids, tokenizer.eos_token_id] if i is not None)


def _batch(
    model: Any, tokenizer: Any, prompts: list[list[int]], max_new_tokens: int, ends: list[int]
) -> list[list[int]]:
    """Padded on the left, so that all go on from the same place."""
    width = max(len(p) for p in prompts)
    padding = next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)
    ids = torch.tensor([[padding] * (width - len(p)) + p for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    with torch.no_grad():
        out = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=padding,
            eos_token_id=ends or None,
        )
    return [list(map(int, row[width:])) for row in out]


def _until(ids: list[int], ends: frozenset[int]) -> list[int]:
    first = next((i for i, token in enumerate(ids) if token in ends), len(ids))
    return ids[:first]
