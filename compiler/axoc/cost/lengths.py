"""Rows that are not all as long as they may be: what is padded, what is packed, and what attention sees of it.

Memory is always of full rows: some batch has the longest. Time is of the batch to be expected. Where no lengths are known,
rows are full in both.
"""

from __future__ import annotations

from typing import Final, cast

import numpy as np

from axoc.cost.columns import Bools, Columns, Floats
from axoc.cost.scenario import Scenario
from axoc.ir.facts import RowLengths

TILE: Final = 128
"""Tokens by tokens, that flash attention computes at once (Flash_fwd_kernel_traits<64, 128, 128, …>, the backward alike; of larger heads
128 by 64)."""
BEST_FIT: Final = 0.98
"""Of a pack that best fit decreasing fills on chat-like lengths, at least; a windowed packer stays a little below 1."""


def micro_batch_tokens(scenario: Scenario, c: Columns) -> Floats:
    """Tokens, padding included, that one micro-batch is expected to take through the model."""
    count = sequences(scenario, c)
    if scenario.lengths is None or scenario.packing:
        return count * scenario.seq_length
    return count * longest(scenario.trained_lengths, count)


def sequences(scenario: Scenario, c: Columns) -> Floats:
    """Of a micro-batch: a row may be several."""
    return cast(Floats, c.micro_batch * float(scenario.objective.sequences_per_row))


def attended(scenario: Scenario, c: Columns) -> Floats:
    """Length of the rows that attention is computed over: padded rows in full, documents of a pack one by one.

    Documents of different lengths are as much work as documents all of the mean length that a token sees, E[n^2] / E[n]. An
    accelerator's kernels compute whole tiles of it: each length counts as the next multiple of TILE.
    """
    if scenario.lengths is None:
        return np.full(len(c), float(scenario.seq_length))
    if scenario.packing:
        return np.full(len(c), seen(scenario.trained_lengths, tile=1 if scenario.on_cpu else TILE))
    return longest(scenario.trained_lengths, sequences(scenario, c))


def real_tokens(scenario: Scenario, c: Columns) -> Floats:
    """Of one micro-batch, without padding."""
    return cast(Floats, c.micro_batch * rows_per_sequence(scenario) * _mean_of_row(scenario))


def rows_per_sequence(scenario: Scenario) -> float:
    """Rows of the data in one sequence of a batch: several where they are packed."""
    if scenario.lengths is None or not scenario.packing:
        return 1.0
    return 1.0 / packs_per_row(scenario.trained_lengths, scenario.seq_length)


def _mean_of_row(scenario: Scenario) -> float:
    one = float(scenario.seq_length) if scenario.lengths is None else mean(scenario.trained_lengths)
    return one * scenario.objective.sequences_per_row


def padding_share(scenario: Scenario, c: Columns) -> Floats:
    """Of the tokens that are computed, those that are none of the data's."""
    return cast(Floats, 1.0 - real_tokens(scenario, c) / micro_batch_tokens(scenario, c))


def is_padded(scenario: Scenario, c: Columns) -> Bools:
    """Where rows of different lengths stand side by side: attention then gets a mask."""
    differ = scenario.lengths is not None and not scenario.packing and len(scenario.trained_lengths.tokens) > 1
    return (sequences(scenario, c) > 1) & differ


# --- distributions


def mean(lengths: RowLengths) -> float:
    return float(np.dot(lengths.tokens, lengths.shares))


def seen(lengths: RowLengths, tile: int = 1) -> float:
    """Mean length of the row that a token stands in, E[n^2] / E[n]; the lengths squared rounded up to whole tiles."""
    whole = np.ceil(np.asarray(lengths.tokens) / tile) * tile
    return float(np.dot(np.square(whole), lengths.shares)) / mean(lengths)


def longest(lengths: RowLengths, rows: Floats) -> Floats:
    """Expected length of the longest of so many rows, drawn independently: the sum of n (F(n)^m - F(n-)^m)."""
    upto = np.minimum(np.cumsum(lengths.shares), 1.0)
    upto[-1] = 1.0
    within = np.diff(upto[None, :] ** rows[:, None], axis=1, prepend=0.0)
    return cast(Floats, within @ np.asarray(lengths.tokens))


def packs_per_row(lengths: RowLengths, limit: int) -> float:
    """Packs over rows: by tokens at the packer's fill, but no two rows of more than half a pack share one, which bounds
    any packing (Martello and Toth 1990, the bound L1 beside the count of large items)."""
    large = sum(s for n, s in zip(lengths.tokens, lengths.shares, strict=True) if n > limit / 2)
    return min(1.0, max(mean(lengths) / (limit * BEST_FIT), large))


def of_mean(tokens: float, limit: int, source: str, points: int = 32) -> RowLengths:
    """The distribution that assumes least beside the mean: exponential (the one of highest entropy on positive lengths),
    cut at the limit so that the mean of what is trained is ``tokens``."""
    if tokens >= limit * 0.995:
        return RowLengths(tokens=(float(limit),), shares=(1.0,), source=source)
    scale = _scale(tokens, float(limit))
    places = (np.arange(points) + 0.5) / points
    found = np.minimum(-scale * np.log1p(-places), float(limit))
    found *= tokens / found.mean()
    return RowLengths(
        tokens=tuple(float(n) for n in np.minimum(found, limit)), shares=(1.0 / points,) * points, source=source
    )


def _scale(tokens: float, limit: float) -> float:
    """Of the exponential whose mean, cut at the limit, is ``tokens``: scale x (1 - exp(-limit / scale)), which grows with
    the scale."""
    low, high = tokens, tokens
    while high * -np.expm1(-limit / high) < tokens:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if middle * -np.expm1(-limit / middle) < tokens else (low, middle)
    return high
