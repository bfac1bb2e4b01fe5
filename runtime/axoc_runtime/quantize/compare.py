"""A method beside the unquantized model on the same windows, and how sure the difference is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

RESAMPLES: Final = 2000
CONFIDENCE: Final = 0.95
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Change:
    """Of the perplexity, relative to another's on the same windows; 0.01 is 1% more."""

    value: float
    low: float
    high: float
    """Between them it lies with a confidence of 95%, as far as these windows stand for the text."""


def perplexity(read: dict[str, Any]) -> float:
    return _exp(sum(read["nats"]) / sum(read["counts"]))


def change(read: dict[str, Any], other: dict[str, Any]) -> Change:
    """On the windows that both have read, of which one that is slow has the first few.

    Bootstrap over windows, both models on the same ones: what makes a window hard for both is no doubt about their
    difference (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13)."""
    both = min(len(read["nats"]), len(other["nats"]))
    apart = np.array(read["nats"][:both]) - np.array(other["nats"][:both])
    counts = np.array(read["counts"][:both], dtype=np.float64)
    drawn = np.random.default_rng(0).integers(0, len(apart), (RESAMPLES, len(apart)))
    means = apart[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Change(value=_exp(apart.sum() / counts.sum()) - 1, low=_exp(low) - 1, high=_exp(high) - 1)


def same_top(read: dict[str, Any], other: dict[str, Any]) -> float:
    """Share of positions where both put the same token first."""
    both = min(len(read["top"]), len(other["top"]))
    return float(np.mean(np.array(read["top"][:both]) == np.array(other["top"][:both])))


def apart(read: dict[str, Any], others: Sequence[dict[str, Any]]) -> bool:
    """Whether each of the others is surely better or surely worse."""
    return all(not c.low <= 0 <= c.high for c in (change(read, other) for other in others))


def _exp(nats: float) -> float:
    return math.exp(nats) if nats < 700 else math.inf
