"""Rows for tokens that the spec adds."""

from __future__ import annotations

from typing import Any

import torch

from axoc_runtime.job import Job


@torch.no_grad()
def grow_vocabulary(job: Job, model: Any) -> None:
    """The embedding and the head to the plan's number of rows. New ones begin as the mean of the others, in which no token is
    likelier than it was on average (transformers' own way draws them, by a covariance of the whole matrix in float32)."""
    rows = job.model.tokenizer.embedding_rows
    if rows is None or rows == model.get_input_embeddings().num_embeddings:
        return
    before = model.get_input_embeddings().num_embeddings
    model.resize_token_embeddings(rows, mean_resizing=False)
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    weights = {id(layer.weight): layer.weight for layer in layers if layer is not None}  # tied ones once
    for weight in weights.values():
        with _whole(weight):
            weight[before:] = weight[:before].mean(0, dtype=torch.float32).to(weight.dtype)


def _whole(weight: Any) -> Any:
    """Of ZeRO-3's shards: gathered, changed on every rank alike, and sharded again."""
    from contextlib import nullcontext

    if not hasattr(weight, "ds_id"):
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters([weight], modifier_rank=0)
