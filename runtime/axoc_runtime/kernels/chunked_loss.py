"""Cross-entropy of a linear head without the logits of all tokens: a chunk of rows at a time, on any device.

The gradients are made in the forward pass, while a chunk's logits are there, as Liger's kernel does; the backward pass scales
them. What stays for it is as large as the hidden states and the head's weight, whatever the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Final, NamedTuple

import torch

IGNORED: Final = -100
LOGITS_AT_ONCE: Final = 2**28
"""Elements, at most: of 128,256 words 2,048 rows, a GiB in float32. Each chunk reads the head's weight three times and writes
its gradient: fewer, larger chunks are faster."""
ROW_MULTIPLE: Final = 128
"""Matrix units compute in tiles of so many rows."""


class Chunk(NamedTuple):
    loss: torch.Tensor
    """Sum over the rows that have a target, float32."""
    gradient: torch.Tensor | None
    """Of that sum by the logits, in their dtype."""


def linear_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    items: torch.Tensor | float | None = None,
    softcapping: float | None = None,
    compiled: bool = False,
    logits_at_once: int = LOGITS_AT_ONCE,
) -> torch.Tensor:
    """Sum over targets of -log softmax(hidden weight^T + bias)[target], over ``items``; the mean where there are none.

    ``hidden`` [rows, width], ``weight`` [words, width], ``targets`` [rows] with IGNORED where nothing is learned. Computes in
    the dtype of an autocast around it, the softmax in float32. ``compiled``: what is done to a chunk's logits is one kernel.
    """
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    rows = rows_at_once(weight.shape[0], logits_at_once)
    learns = torch.is_grad_enabled()
    with torch.autocast(kind, enabled=False):
        total: torch.Tensor = _Loss.apply(hidden, weight, bias, targets, softcapping, dtype, rows, learns, compiled)  # type: ignore[no-untyped-call]
        return total / (targets.ne(IGNORED).sum().clamp(min=1) if items is None else items)


def rows_at_once(words: int, logits: int = LOGITS_AT_ONCE) -> int:
    rows = max(1, logits // words)
    return rows if rows < ROW_MULTIPLE else rows - rows % ROW_MULTIPLE


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        softcapping: float | None,
        dtype: torch.dtype,
        rows: int,
        learns: bool,
        compiled: bool,
    ) -> torch.Tensor:
        wanted = [learns and needed for needed in ctx.needs_input_grad[:3]]
        of_hidden = torch.empty_like(hidden) if wanted[0] else None
        of_weight = torch.zeros_like(weight) if wanted[1] else None
        of_bias = torch.zeros_like(bias) if bias is not None and wanted[2] else None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        head, chunk_of = weight.to(dtype), _chunk_function(compiled)
        for start in range(0, hidden.shape[0], rows):
            part = slice(start, start + rows)
            given = hidden[part].to(dtype)
            logits = given @ head.t() if bias is None else torch.addmm(bias.to(dtype), given, head.t())
            made = chunk_of(logits, targets[part], softcapping, any(wanted))
            total += made.loss
            if made.gradient is not None:
                _gather(made.gradient, given, head, part, of_hidden, of_weight, of_bias)
            del logits, made  # before the next chunk's are made
        ctx.save_for_backward(of_hidden, of_weight, of_bias)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        scaled = (None if g is None else g.mul_(gradients[0].to(g.dtype)) for g in ctx.saved_tensors)
        return (*scaled, *[None] * 6)


def _gather(
    gradient: torch.Tensor,
    given: torch.Tensor,
    head: torch.Tensor,
    part: slice,
    of_hidden: torch.Tensor | None,
    of_weight: torch.Tensor | None,
    of_bias: torch.Tensor | None,
) -> None:
    """What a chunk's gradient by its logits gives those of what the logits were made of."""
    if of_hidden is not None:
        of_hidden[part] = gradient @ head
    if of_weight is not None:
        _accumulate(of_weight, gradient.t(), given)
    if of_bias is not None:
        of_bias += gradient.sum(0)


def _accumulate(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """``total`` += left right; in the product's own kernel where it is of the product's dtype."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


def chunk(logits: torch.Tensor, targets: torch.Tensor, softcapping: float | None, learns: bool) -> Chunk:
    """Loss and gradient of [rows, words] logits."""
    scores = logits.float()
    if softcapping is not None:
        scores = softcapping * torch.tanh(scores / softcapping)
    counted = targets.ne(IGNORED)
    place = targets.clamp(min=0).unsqueeze(1)
    total = torch.logsumexp(scores, 1, keepdim=True)
    loss = torch.where(counted, (total - scores.gather(1, place)).squeeze(1), 0.0).sum()
    if not learns:
        return Chunk(loss, None)
    words = torch.arange(logits.shape[1], device=logits.device)
    gradient = (torch.exp(scores - total) - (words == place).float()) * counted.unsqueeze(1)
    if softcapping is not None:
        gradient = gradient * (1 - (scores / softcapping) ** 2)
    return Chunk(loss, gradient.to(logits.dtype))


@cache
def _chunk_function(compiled: bool) -> Callable[..., Chunk]:
    return torch.compile(chunk) if compiled else chunk_in_place


def chunk_in_place(logits: torch.Tensor, targets: torch.Tensor, softcapping: float | None, learns: bool) -> Chunk:
    """The same for eager mode, with as few passes and as little memory as it takes: one copy of the logits in float32, two
    where scores are capped. Writes over ``logits``."""
    scores = logits.float()
    if softcapping is not None:
        scores = scores.div_(softcapping).tanh_().mul_(softcapping)
    counted = targets.ne(IGNORED)
    place = targets.clamp(min=0).unsqueeze(1)
    total = torch.logsumexp(scores, 1, keepdim=True)
    loss = torch.where(counted, (total - scores.gather(1, place)).squeeze(1), 0.0).sum()
    if not learns:
        return Chunk(loss, None)
    slope = None if softcapping is None else scores.div(softcapping).square_().neg_().add_(1)
    gradient = scores.sub_(total).exp_()
    gradient.scatter_add_(1, place, -torch.ones_like(place, dtype=gradient.dtype))
    gradient.mul_(counted.unsqueeze(1) if slope is None else slope.mul_(counted.unsqueeze(1)))
    return Chunk(loss, logits.copy_(gradient))
