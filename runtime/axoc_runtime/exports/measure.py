"""A consumer against the trained model: perplexity and logits of the same text, within a stated bound."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from axoc_runtime.exports.base import NONE, CannotExport, Consumer, Logits
from axoc_runtime.exports.source import Source
from axoc_runtime.exports.texts import Text

UNQUANTIZED: Final = 0.01
"""Largest relative difference of the perplexity that rounding to 16 bits may make."""
BOUNDS: Final[Mapping[str, float]] = {
    "q8_0": 0.02, "q6_k": 0.03, "q5_k_m": 0.06, "q5_k_s": 0.08, "q4_k_m": 0.15, "q4_k_s": 0.2, "q4_0": 0.3,
    "q3_k_m": 0.5, "q2_k": 2.0, "fp8": 0.14, "int8": 0.14, "int4": 0.6, "awq": 0.3, "gptq": 0.3,
    "nf4": 0.6, "fp4": 0.9, "llm_int8": 0.06,
}  # fmt: skip
"""By quantization. Small models lose most: these are about twice what a model of 135M parameters was seen to lose
(docs/exports.md), so that what is beyond them is broken rather than coarse."""
LOGITS: Final = 0.05
"""Largest relative difference of unquantized logits, as norms."""
UNRELATED: Final = 1.0
"""Of quantized logits: as far away as no logits at all are."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What the trained model says of each text."""

    texts: tuple[Text, ...]
    logits: tuple[Logits, ...]
    perplexity: float | None
    """None of a reward model."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    perplexity: float | None
    perplexity_difference: float | None
    """Relative to the trained model's, with its sign."""
    logits_difference: float
    """Norm of the difference over the norm of the trained model's logits."""
    same_top_token: float
    """Share of positions where both models put the same token first."""
    tokens: int


def reference(source: Source, consumer: Consumer) -> Reference:
    logits = tuple(consumer.logits(text.ids) for text in source.texts)
    found = _perplexity(source.texts, logits) if source.causal else None
    return Reference(texts=source.texts, logits=logits, perplexity=found)


def measure(reference: Reference, consumer: Consumer) -> Measured:
    """Raises CannotExport where the consumer's vocabulary is another one."""
    logits = tuple(
        _same_width(consumer.logits(t.ids), r) for t, r in zip(reference.texts, reference.logits, strict=True)
    )
    pairs = list(zip(reference.logits, logits, strict=True))
    found = _perplexity(reference.texts, logits) if reference.perplexity is not None else None
    apart = sum(float(np.square(b - a, dtype=np.float64).sum()) for a, b in pairs)
    whole = sum(float(np.square(a, dtype=np.float64).sum()) for a, _ in pairs)
    agree = [a.argmax(-1) == b.argmax(-1) for a, b in pairs]
    return Measured(
        perplexity=found,
        perplexity_difference=None
        if found is None or reference.perplexity is None
        else found / reference.perplexity - 1,
        logits_difference=math.sqrt(apart / whole) if whole else 0.0,
        same_top_token=float(np.concatenate(agree).mean()),
        tokens=sum(len(t.ids) for t in reference.texts),
    )


def check(measured: Measured, variant: str) -> None:
    """Raises CannotExport where the format is further from the trained model than its bound."""
    bound, difference = bound_of(variant), measured.perplexity_difference
    if difference is not None and not abs(difference) <= bound:
        message = f"its perplexity is {measured.perplexity:.4g}, {difference:+.1%} from the trained model's; {bound:.0%} is allowed"
        raise CannotExport(message, _fix(variant))
    most = LOGITS if variant == NONE else UNRELATED
    if not measured.logits_difference <= most:
        message = f"its logits are {measured.logits_difference:.1%} from the trained model's; {most:.0%} is allowed"
        raise CannotExport(message, _fix(variant))


def bound_of(variant: str) -> float:
    return UNQUANTIZED if variant == NONE else BOUNDS.get(variant, 0.3)


def _fix(variant: str) -> str:
    if variant == NONE:
        return "the consumer computes another model: report it with final/config.json"
    return "ask for a finer quantization, or for none"


def _same_width(found: Logits, wanted: Logits) -> Logits:
    """Formats may pad the vocabulary, never cut it."""
    if found.shape[0] != wanted.shape[0] or found.shape[1] < wanted.shape[1]:
        message = f"the consumer's logits have the shape {found.shape}, the trained model's {wanted.shape}"
        raise CannotExport(message, "its vocabulary is another one: use the tokenizer that the model was trained with")
    return found[:, : wanted.shape[1]]


def _perplexity(texts: Iterable[Text], logits: Iterable[Logits]) -> float:
    """Over the tokens that count, each predicted from those before it."""
    total, count = 0.0, 0
    for text, found in zip(texts, logits, strict=True):
        at = np.array([i for i in range(1, len(text.ids)) if text.counted[i]], dtype=np.int64)
        rows = found[at - 1].astype(np.float64)
        highest = rows.max(-1, keepdims=True)
        normalizer = np.log(np.exp(rows - highest).sum(-1)) + highest[:, 0]
        total += float((normalizer - rows[np.arange(len(at)), np.array(text.ids)[at]]).sum())
        count += len(at)
    nats = total / max(count, 1)
    return math.exp(nats) if nats < 700 else math.inf
