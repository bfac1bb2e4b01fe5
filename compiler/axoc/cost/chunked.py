"""The chunked loss: logits of a chunk of rows at a time in torch's own operations, and the gradients at once.

What it holds and does is read off runtime/axoc_runtime/kernels/chunked_loss.py.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from axoc.cost.columns import Floats
from axoc.cost.layers import FP32, Setting
from axoc.cost.tape import Parameter, Size, Tape, Value

LOGITS_AT_ONCE: Final = float(2**28)
"""Elements; tests/contract holds it against the runtime's."""
ROW_MULTIPLE: Final = 128.0
EAGER_BYTES: Final = 56.0
"""Of each fp32 score, read and written: raised 4; logsumexp's maximum 4, difference 8, exponential 8, sum 4; difference and
exponential in place 16; the mask's product 8; copied back 4. The logits themselves are read and written beside it."""


def chunk_rows(tokens: Size, vocabulary: int) -> Floats:
    rows = max(1.0, LOGITS_AT_ONCE // vocabulary)
    return np.minimum(rows if rows < ROW_MULTIPLE else rows - rows % ROW_MULTIPLE, tokens)


def chunked_loss(t: Tape, s: Setting, hidden: Value, weight: Parameter | None) -> Value:
    """``weight``: of the head, where it is trained and a backward follows. ``s``: as the blocks are, compiled or not."""
    model, matrix = s.scenario.model, s.scenario.sizes.vocabulary_matrix
    low = s.compute if s.autocast else hidden.bytes
    copies = s.autocast and s.weight > s.compute
    sizes = (float(weight is not None), float(copies))
    width: Size = hidden.width if t.records else 0.0  # an evaluation asks for no gradient
    gradient = t.apply(width, hidden.bytes, [hidden], kind="chunked_loss", sizes=sizes)
    of_weight = t.allocate(matrix * s.weight) if weight is not None else None
    rows = chunk_rows(hidden.size / (model.hidden_size * hidden.bytes), model.vocab_size)
    product = matrix * low if weight is not None and s.weight != low else 0.0  # else added in the product's own kernel
    scores = rows * model.vocab_size
    copied: Size = matrix * s.compute if copies else 0.0
    given = (
        rows * model.hidden_size * low
    )  # of the hidden states, where they are cast; its gradient's product is as large
    copied = copied + (given if hidden.bytes > low else 0.0)
    parts = [scores * size for size in chunk_bytes(s, low, learns=t.records)]
    gathered = scores * gathered_bytes(s, low) + np.maximum(product, given) if t.records else 0.0
    t.scratch(copied, *parts, np.maximum(gathered - sum(parts), 0.0))
    saves = [gradient.storage, *([of_weight] if of_weight is not None else [])]
    kept = [] if weight is None else [Parameter(0.0, weight.kept, False, whole=matrix * s.weight)]
    loss = t.apply(0.0, FP32, [gradient], saves=saves, flows=("over",), parameters=kept)
    for storage in saves:
        t.release(storage)
    return loss


def gathered_bytes(s: Setting, low: float) -> float:
    """Of each score while the gradients are gathered: eager code has written the logits' over them, compiled code has both."""
    return 2.0 * low if s.scenario.compile else low


def chunk_bytes(s: Setting, low: float, *, learns: bool) -> tuple[float, ...]:
    """Of each score at the top of a chunk, tensor by tensor: its logits, the fp32 scores, and a temporary as large (logsumexp's, or
    the cap's slope). Compiled code makes only the gradient beside the logits, if one is asked for."""
    if s.scenario.compile:
        return (low, low) if learns else (low,)
    return low, FP32, FP32
