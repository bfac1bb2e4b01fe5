"""How Liger's fused loss cuts its work, and the least that an accelerator takes for it (liger_kernel 0.8.5,
ops/fused_linear_cross_entropy.py, fused_linear_cross_entropy_forward)."""

from __future__ import annotations

from typing import Final

import numpy as np

from axoc.cost.columns import Floats
from axoc.cost.tape import Size

ELEMENT_BYTES: Final = 2.0
"""In bf16, as it was measured."""
PASSES: Final = 4.0
"""Over the logits: read twice and written twice."""


def chunk_rows(tokens: Size, hidden: Size, vocabulary: Size) -> Floats:
    """As many as make the logits no larger than the hidden states, rounded up to a power of two: 32 chunks of a vocabulary 63 times
    as wide as the stream."""
    chunks = np.ceil(vocabulary / hidden)
    rows: Floats = 2.0 ** np.ceil(np.log2(np.maximum(1.0, np.ceil(tokens / chunks))))
    return np.minimum(rows, tokens)


def least_seconds(
    sizes: Floats, flops_per_second: float, bytes_per_second: float, launch_seconds: float, *, trained: bool
) -> Floats:
    """``sizes``: tokens, hidden, vocabulary, one row a loss. In each chunk a product for the logits and one for the hidden states'
    gradient; that of a trained head is added to, so that it is read and written. A product takes its arithmetic or its bytes,
    whichever is longer: of few rows, the head's."""
    tokens, hidden, vocabulary = sizes.T
    rows = chunk_rows(tokens, hidden, vocabulary)
    head, scores, states = hidden * vocabulary, rows * vocabulary, rows * hidden
    arithmetic = 2.0 * rows * head / flops_per_second
    read_once = ELEMENT_BYTES * (head + scores + states) / bytes_per_second
    seconds = 2.0 * np.maximum(arithmetic, read_once) + PASSES * ELEMENT_BYTES * scores / bytes_per_second
    if trained:
        seconds = seconds + np.maximum(arithmetic, read_once + ELEMENT_BYTES * head / bytes_per_second)
    return np.asarray(np.ceil(tokens / rows) * (seconds + (4.0 if trained else 3.0) * launch_seconds))
