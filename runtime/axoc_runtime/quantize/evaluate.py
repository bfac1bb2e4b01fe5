"""A consumer's figures: nats of each window of held-out text, most likely tokens, and how fast it reads and writes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from axoc_runtime.exports.base import CannotExport, Consumer
from axoc_runtime.exports.texts import Text
from axoc_runtime.quantize.runner import Generator, Timed

Say = Callable[[str], None]
LEAST_WINDOWS: Final = 8
"""That are read however long it takes: fewer say little about how sure a figure is."""
LEAST_TOKENS: Final = 8
LEAST_REPEATS: Final = 2
"""Of what is written, likewise."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Tokens a second: the median of several measurements, and the slowest and fastest of them."""

    median: float
    slowest: float
    fastest: float


@dataclass(frozen=True, kw_only=True)
class Read:
    nats: tuple[float, ...]
    """Of each window, summed over its tokens."""
    counts: tuple[int, ...]
    """Tokens of each window that were predicted."""
    top: tuple[int, ...]
    """The most likely token at each of those positions."""
    speed: Speed


def read(consumer: Consumer, windows: Sequence[Text], vocabulary: int, say: Say, seconds: float | None = None) -> Read:
    """Once unmeasured, which loads, compiles and decompresses; then the windows in their order, as many as ``seconds`` are
    enough for. Raises CannotExport where logits are none."""
    consumer.logits(windows[0].ids)
    nats, counts, top, rates = [], [], [], []
    started = time.perf_counter()
    for index, text in enumerate(windows):
        if seconds is not None and index >= min(LEAST_WINDOWS, len(windows)):
            passed = time.perf_counter() - started
            if passed * (index + 1) / index > seconds:
                break
        began = time.perf_counter()
        logits = consumer.logits(text.ids)[:, :vocabulary]
        passed = time.perf_counter() - began
        rates.append(len(text.ids) / (consumer.computing_seconds if isinstance(consumer, Timed) else passed))
        if not np.isfinite(logits).all():
            raise CannotExport("its logits are not finite")
        nats.append(_nats(logits, text.ids))
        counts.append(len(text.ids) - 1)
        top += logits[:-1].argmax(-1).tolist()
        say(f"{index + 1}/{len(windows)} windows")
    return Read(nats=tuple(nats), counts=tuple(counts), top=tuple(top), speed=_speed(rates))


def write_speed(
    consumer: Consumer, prompt: Sequence[int], count: int, repeats: int, seconds: float | None = None
) -> Speed | None:
    """Of ``count`` tokens ``repeats`` times, or as many as ``seconds`` are enough for. None where the consumer only computes
    logits."""
    if not isinstance(consumer, Generator):
        return None
    began = time.perf_counter()
    consumer.generate(prompt, 2)
    a_token = (time.perf_counter() - began) / 2
    if seconds is not None and a_token * count * repeats > seconds:
        repeats = LEAST_REPEATS
        count = min(count, max(LEAST_TOKENS, int(seconds / repeats / a_token)))
    rates = []
    for _ in range(repeats):
        began = time.perf_counter()
        made = consumer.generate(prompt, count)
        rates.append(len(made) / (time.perf_counter() - began))
    return _speed(rates)


def _nats(logits: Any, ids: Sequence[int]) -> float:
    """Each token from those before it."""
    rows = logits[:-1].astype(np.float64)
    highest = rows.max(-1, keepdims=True)
    normalizer = np.log(np.exp(rows - highest).sum(-1)) + highest[:, 0]
    return float((normalizer - rows[np.arange(len(rows)), np.array(ids[1:])]).sum())


def _speed(rates: Sequence[float]) -> Speed:
    return Speed(median=statistics.median(rates), slowest=min(rates), fastest=max(rates))
