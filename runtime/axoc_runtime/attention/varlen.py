"""Attention over documents of unequal length, as an attention function of transformers.

A packed batch is one row of documents, and its boundaries come as ``cu_seq_lens_q`` with the batch. The kernel is torch's own
(torch/nn/attention/varlen.py: flash attention 2, which needs no further package) or flash attention 4's; neither needs a mask.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from axoc_runtime.attention.backends import BACKENDS, Backend, Heads, obstacles
from axoc_runtime.attention.by_document import by_document, capped
from axoc_runtime.attention.flash_4 import kernel as flash_4_kernel

FLASH_4: Final = "flash_attention_4"


def varlen_attention(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, None]:
    return _attention(BACKENDS["varlen"], *args, **kwargs)


def flash_4_attention(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, None]:
    return _attention(BACKENDS[FLASH_4], *args, **kwargs)


def _attention(
    backend: Backend,
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within documents. ``query`` [batch, heads, tokens, size]; returns [batch, tokens, heads, size].

    Without boundaries each row is one document; with a mask, as where rows are padded or answers are generated, it is
    SDPA's.
    """
    if attention_mask is not None or query.shape[2] != key.shape[2]:
        if softcap is not None and attention_mask is not None:
            made = capped(query, key, value, attention_mask, scaling, softcap, dropout)
            return made.transpose(1, 2), None
        output = sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
        return output[0], None
    batch, heads, length, _ = query.shape
    if cu_seq_lens_q is None or max_length_q is None:
        cu_seq_lens_q = torch.arange(0, (batch + 1) * length, length, dtype=torch.int32, device=query.device)
        max_length_q = length
    dtype = computed_in(query, value)
    q, k, v = (t.transpose(1, 2).flatten(0, 1).to(dtype) for t in (query, key, value))
    asked = Heads(size=query.shape[-1], softcapping=softcap, dropout=dropout, sliding_window=sliding_window)
    why_not = obstacles(backend, asked, str(dtype).removeprefix("torch."), _capability(query.device))
    if why_not or query.shape[-1] != value.shape[-1]:
        output = by_document(
            q,
            k,
            v,
            cu_seq_lens_q,
            scale=scaling,
            window=sliding_window,
            softcapping=softcap,
            dropout=dropout,
            because="; ".join(why_not) or "keys and values are of different sizes",
        )
    else:
        kernel = flash_4_kernel if backend.name == FLASH_4 else _kernel
        output = kernel(q, k, v, cu_seq_lens_q, max_length_q, scaling, sliding_window)
    return output.view(batch, length, heads, value.shape[-1]), None


def varlen_mask(*args: Any, attention_mask: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor | None:
    """A mask only where rows are padded: documents are kept apart by their boundaries."""
    return None if attention_mask is None else sdpa_mask(*args, attention_mask=attention_mask, **kwargs)


def computed_in(query: torch.Tensor, value: torch.Tensor) -> torch.dtype:
    """Under autocast rotary embeddings raise queries and keys to float32: attention is lowered again, as SDPA is."""
    kind = query.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else value.dtype


def _capability(device: torch.device) -> tuple[int, int] | None:
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else None


def _bind() -> Callable[..., torch.Tensor]:
    """torch 2.10 knew neither scale nor window, and told causal attention by a flag: its place is that of today's window."""
    from torch.nn.attention.varlen import varlen_attn

    known = frozenset(inspect.signature(varlen_attn).parameters)

    def kernel(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        boundaries: torch.Tensor,
        longest: int,
        scale: float | None,
        window: int | None,
    ) -> torch.Tensor:
        options: dict[str, Any] = {}
        if "window_size" in known:
            options["window_size"] = (-1 if window is None else window - 1, 0)
        else:
            options["is_causal"] = True
        if "enable_gqa" in known:
            options["enable_gqa"] = query.shape[1] != key.shape[1]
        if "scale" in known:
            options["scale"] = scale
        elif scale is not None:
            query = query * (scale * query.shape[-1] ** 0.5)
        made: Any = varlen_attn(query, key, value, boundaries, boundaries, longest, longest, **options)
        return made  # type: ignore[no-any-return]

    return kernel


_kernel = _bind()
