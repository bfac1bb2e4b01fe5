"""What comes after the blocks where answers are compared or scored: the losses of cost/objectives.py, on a tape."""

from __future__ import annotations

from typing import Final

import numpy as np

from axoc.cost.columns import Floats
from axoc.cost.layers import FP32, Setting, cast
from axoc.cost.tape import Parameter, Size, Tape, Value

TILE_TOKENS: Final = 4096
TILE_WORDS: Final = 32768
"""Rows and columns of the logits that are there at a time (trl/kernels/chunked_logprob.py: TOKEN_CHUNK_SIZE;
trl/trainer/utils.py: _CHUNKED_LOGPROB_CHUNK_SIZE)."""


def log_probabilities(t: Tape, s: Setting, hidden: Value, head: Parameter | None) -> Value:
    """trl/kernels/chunked_logprob.py: ChunkedLogProbFunction. The rows that have a label are copied (here all of them: a
    prompt's have none, so this is the most), the logits come and go tile by tile, and the backward makes them again.
    Both gradients are summed in fp32 and then cast. A few numbers a token are left out."""
    model, matrix = s.scenario.model, float(s.scenario.sizes.vocabulary_matrix)
    rows = t.apply(hidden.width, hidden.bytes, [hidden], kind="copy")
    tile = tile_bytes(s, t.tokens)
    t.scratch(tile)
    summed = hidden.width * FP32 * t.tokens + (matrix * FP32 if head is not None else 0.0)
    loss = t.apply(
        0.0,
        FP32,
        [rows],
        saves=[rows.storage],
        scratch=tile + summed,
        parameters=[] if head is None else [head],
        kind="log_probabilities",
        sizes=(float(model.hidden_size), float(model.vocab_size), float(head is not None)),
    )
    t.drop(rows)
    return loss


def tile_bytes(s: Setting, tokens: Size) -> Size:
    """A tile of logits in the compute dtype, and the part of the head it is made with where that has to be cast."""
    model = s.scenario.model
    words = float(min(model.vocab_size, TILE_WORDS))
    low = min(s.weight, s.compute) if s.autocast else s.weight
    copied = words * model.hidden_size * low if low != s.weight else 0.0
    return np.minimum(tokens, float(TILE_TOKENS)) * TILE_WORDS * low + copied


def tiles(tokens: Floats, vocabulary: float) -> Floats:
    counted: Floats = np.ceil(tokens / TILE_TOKENS) * np.ceil(vocabulary / TILE_WORDS)
    return counted


def whole_logits(t: Tape, s: Setting, logits: Value) -> Value:
    """experimental/orpo and experimental/cpo: accelerate raises the logits to fp32 under mixed precision, and they stay,
    for each of the two ways to use them saves them. Both get a gradient as large as the logits: the log-probabilities
    (gather and logsumexp, trl/trainer/utils.py: selective_log_softmax), through a slice without the last position, and
    ORPO's cross-entropy over the chosen half, which copies it first."""
    values = logits
    if s.scenario.mixed_precision != "no":
        values = cast(t, logits, FP32)
        t.drop(logits)
    sliced = t.apply(values.width, values.bytes, [values], onto=values.storage, kind="slice")
    picked = t.apply(1.0, values.bytes, [sliced])
    normal = t.apply(1.0, values.bytes, [sliced], saves=[sliced.storage], kind="log_softmax")
    parts = [picked, normal]
    if s.scenario.objective.also_imitates:
        parts.append(_imitation(t, values))
    t.drop(sliced)
    loss = t.apply(0.0, FP32, parts)
    t.drop(*parts, values)
    return loss


def _imitation(t: Tape, values: Value) -> Value:
    """Cross-entropy of the first half of the batch."""
    half = t.apply(values.width / 2, values.bytes, [values], kind="copy")
    probabilities = t.apply(half.width, half.bytes, [half], kind="log_softmax")
    t.keep_output(probabilities)
    t.drop(half)
    loss = t.apply(0.0, FP32, [probabilities], saves=[probabilities.storage], kind="nll")
    t.drop(probabilities)
    return loss


def score(t: Tape, s: Setting, hidden: Value) -> Value:
    """A head of one output, trained whole, beside an adapter too; then the last token's is picked."""
    width = float(s.scenario.model.hidden_size)
    head = Parameter(width * hidden.bytes, width * s.weight, hidden.bytes != s.weight)
    return t.apply(
        1.0, hidden.bytes, [hidden], saves=[hidden.storage], parameters=[head], kind="linear", sizes=(width, 1.0)
    )
