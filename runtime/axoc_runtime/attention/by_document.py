"""Attention document by document: correct on every device, in every dtype; what `varlen` falls back to."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

import torch
from torch.nn import functional

_SAID: Final[set[str]] = set()


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
    if torch.compiler.is_compiling() and not dropout:
        made: torch.Tensor = _opaque(query, key, value, boundaries, scale, window, softcapping, because)
        return made
    say_once(
        f"axoc: attention varlen runs document by document here ({because}): right, but a call a document and layer"
    )
    return _each(query, key, value, boundaries, scale, window, softcapping, dropout)


@torch.library.custom_op("axoc::by_document", mutates_args=())
def _opaque(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    boundaries: torch.Tensor,
    scale: float | None,
    window: int | None,
    softcapping: float | None,
    because: str,
) -> torch.Tensor:
    """One node of a compiled graph, as the kernel is: how many documents there are is known only when it runs."""
    return by_document(
        query,
        key,
        value,
        boundaries,
        scale=scale,
        window=window,
        softcapping=softcapping,
        dropout=0.0,
        because=because,
    ).contiguous()


@_opaque.register_fake
def _shape(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any) -> torch.Tensor:
    return query.new_empty((*query.shape[:2], value.shape[2]))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.options = inputs[4:7]


def _backward(ctx: Any, gradient: torch.Tensor) -> Any:
    return (*_gradients(gradient, *ctx.saved_tensors, *ctx.options), *[None] * 5)


@torch.library.custom_op("axoc::by_document_backward", mutates_args=())
def _gradients(
    gradient: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    boundaries: torch.Tensor,
    scale: float | None,
    window: int | None,
    softcapping: float | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """By another forward pass: of an operation of its own autograd sees nothing."""
    found = [
        _one_backward(gradient[a:b], query[a:b], key[a:b], value[a:b], scale, window, softcapping)
        for a, b in pairwise(boundaries.tolist())
        if b > a
    ]
    of_query, of_key, of_value = (torch.cat(parts) for parts in zip(*found, strict=True))
    return of_query, of_key, of_value


@_gradients.register_fake
def _gradient_shapes(
    gradient: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


_opaque.register_autograd(_backward, setup_context=_keep)


def _each(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    boundaries: torch.Tensor,
    scale: float | None,
    window: int | None,
    softcapping: float | None,
    dropout: float,
) -> torch.Tensor:
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


def _one_backward(
    gradient: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float | None,
    window: int | None,
    softcapping: float | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of one document, computed in float32: all tensors [tokens, heads, size]."""
    groups, factor = query.shape[1] // key.shape[1], query.shape[-1] ** -0.5 if scale is None else scale
    out, asked = (t.transpose(0, 1).float() for t in (gradient, query))
    known, held = (t.transpose(0, 1).repeat_interleave(groups, 0).float() for t in (key, value))
    scores = asked @ known.transpose(1, 2) * factor
    slope = torch.ones(())
    if softcapping is not None:
        bent = torch.tanh(scores / softcapping)
        scores, slope = softcapping * bent, 1 - bent**2
    weights = scores.masked_fill(~_seen(query.shape[0], window, query.device), float("-inf")).softmax(-1)
    of_weights = out @ held.transpose(1, 2)
    of_scores = weights * (of_weights - (of_weights * weights).sum(-1, keepdim=True)) * slope * factor
    of_query, of_key, of_value = of_scores @ known, of_scores.transpose(1, 2) @ asked, weights.transpose(1, 2) @ out
    of_key, of_value = (t.view(-1, groups, *t.shape[1:]).sum(1) for t in (of_key, of_value))
    made = [t.transpose(0, 1).contiguous() for t in (of_query, of_key, of_value)]
    return made[0].to(query.dtype), made[1].to(key.dtype), made[2].to(value.dtype)


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


def say_once(text: str) -> None:
    """Once a process and reason."""
    if text not in _SAID:
        _SAID.add(text)
        print(text, flush=True)
