"""Attention document by document: correct on every device, in every dtype; what `varlen` falls back to."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import torch
from torch.nn import functional

_SAID: Final[set[str]] = set()


@torch.compiler.disable  # type: ignore[untyped-decorator] # the number of documents differs from batch to batch
def by_document(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    boundaries: torch.Tensor,
    *,
    scale: float | None,
    window: int | None,
    softcapping: float | None,
    dropout: float,
    because: str,
) -> torch.Tensor:
    """Causal attention within each document.

    ``query`` [tokens, heads, size], ``key`` and ``value`` [tokens, key heads, size], ``boundaries`` [documents + 1] as
    cumulated lengths. ``window``: tokens that a token sees, itself among them. Returns [tokens, heads, value size].
    """
    _say(f"axoc: attention varlen runs document by document here ({because}): right, but a call a document and layer")
    ends = boundaries.tolist()
    done = [
        _one(query[a:b], key[a:b], value[a:b], scale, window, softcapping, dropout) for a, b in pairwise(ends) if b > a
    ]
    return torch.cat(done)


def _one(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float | None,
    window: int | None,
    softcapping: float | None,
    dropout: float,
) -> torch.Tensor:
    """Of one document: all tensors [tokens, heads, size]."""
    query, key, value = (t.transpose(0, 1).unsqueeze(0) for t in (query, key, value))
    length = query.shape[2]
    narrow = window is not None and length > window
    mask = _seen(length, window, query.device) if narrow or softcapping is not None else None
    if softcapping is not None:
        assert mask is not None
        made = capped(query, key, value, mask, scale, softcapping, dropout)
    else:
        made = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scale, enable_gqa=True
        )
    return made.squeeze(0).transpose(0, 1)


def capped(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    scale: float | None,
    softcapping: float,
    dropout: float,
) -> torch.Tensor:
    """Scores through ``softcapping`` x tanh(score / softcapping) before the softmax, which is taken in float32. Tensors are
    [batch, heads, tokens, size], ``mask`` is true where a key is seen."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
    scores = softcapping * torch.tanh(scores / softcapping)
    unseen = torch.finfo(scores.dtype).min  # not minus infinity: a row of padding may see nothing at all
    weights = scores.masked_fill(~mask, unseen).float().softmax(-1).to(value.dtype)
    return functional.dropout(weights, dropout) @ value


def _seen(length: int, window: int | None, device: torch.device) -> torch.Tensor:
    """[tokens, tokens]: true where a query (row) sees a key (column)."""
    position = torch.arange(length, device=device)
    behind = position[:, None] - position[None, :]
    return (behind >= 0) & (behind < (length if window is None else window))


def _say(text: str) -> None:
    """Once a process and reason."""
    if text not in _SAID:
        _SAID.add(text)
        print(text, flush=True)
