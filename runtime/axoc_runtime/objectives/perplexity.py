"""Perplexity of a held-out split, exact for any number of ranks and batch sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
import torch.distributed as dist

IGNORED = -100


def mean_negative_log_likelihood(
    model: Any,
    rows: Any,
    collate: Any,
    *,
    batch_size: int,
    device: torch.device,
    rank: int,
    world: int,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[float, int]:
    """(nats a label token, label tokens) over all ranks. Every rank runs the same number of forward passes, because
    under FSDP and ZeRO-3 each one is a collective; a rank that has run out of rows repeats one with no labels.

    ``rank`` of ``world`` that read rows of their own: tensor-parallel ranks read the same."""
    was_training = model.training
    model.eval()
    total, count = torch.zeros((), dtype=torch.float64), 0
    stride = batch_size * world
    with torch.no_grad():
        for start in range(0, len(rows), stride):
            mine = range(start + rank * batch_size, min(start + (rank + 1) * batch_size, len(rows)))
            loss, labels = _batch(model, rows, mine, collate, device, options)
            if labels:
                total += loss.double().cpu() * labels
                count += labels
    model.train(was_training)
    sums = torch.tensor([float(total), float(count)], dtype=torch.float64, device=device)
    if dist.is_initialized():
        dist.all_reduce(sums)
        sums /= dist.get_world_size() / world
    return float(sums[0] / sums[1].clamp(min=1)), int(sums[1])


def perplexity(nats: float) -> float:
    """Infinity beyond what a float holds: a diverged model is no reason to crash."""
    return math.exp(nats) if nats < 700 else math.inf


def _batch(
    model: Any, rows: Any, mine: Sequence[int], collate: Any, device: torch.device, options: Mapping[str, Any]
) -> tuple[torch.Tensor, int]:
    """Of no rows: of the first one, without its labels."""
    made = collate([rows[i] for i in mine or (0,)])
    inputs = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in made.items()}
    if not mine:
        inputs["labels"] = torch.full_like(inputs["labels"], IGNORED)
    labels = int((inputs["labels"][:, 1:] != IGNORED).sum())  # the first token is never predicted
    return model(**inputs, **options).loss, labels
