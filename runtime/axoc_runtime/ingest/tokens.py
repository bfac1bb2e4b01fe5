"""Text to tokens, many texts at once, and which of the tokens begin inside spans of characters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

Span = tuple[int, int]
"""Characters from, to (exclusive); or tokens."""
Tokenized = tuple[list[int], list[Span]]
"""Ids, and the ranges of them that begin inside the spans asked for."""


def tokenized(tokenizer: Any, texts: Sequence[str], spans: Sequence[Sequence[Span]]) -> list[Tokenized]:
    """The texts as they stand: their template has written all special tokens itself. Spans are in order, and do not
    overlap."""
    if not texts:
        return []
    if not getattr(tokenizer, "is_fast", False):
        return [_by_segment(tokenizer, text, inside) for text, inside in zip(texts, spans, strict=True)]
    made = tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False)
    return [
        (ids, [_range(encoding, span, len(text)) for span in inside])
        for ids, encoding, text, inside in zip(made["input_ids"], made.encodings, texts, spans, strict=True)
    ]


def _range(encoding: Any, span: Span, length: int) -> Span:
    return _at(encoding, span[0], length), _at(encoding, span[1], length)


def _at(encoding: Any, position: int, length: int) -> int:
    """The first token that begins at or after the character; their number where none does.

    The tokenizer is asked for two or three tokens only: a list of all their places takes as long as tokenizing.
    """
    count = len(encoding)
    found = next((t for p in range(position, length) if (t := encoding.char_to_token(p)) is not None), count)
    while found < count and encoding.token_to_chars(found)[0] < position:
        found += 1
    return int(found)


def _by_segment(tokenizer: Any, text: str, spans: Sequence[Span]) -> Tokenized:
    """For tokenizers that do not tell places: each stretch of text on its own."""
    ids: list[int] = []
    ranges: list[Span] = []
    edges = [0, *(edge for span in spans for edge in span), len(text)]
    for index, (start, end) in enumerate(pairwise(edges)):
        piece = list(tokenizer(text[start:end], add_special_tokens=False)["input_ids"]) if end > start else []
        if index % 2:
            ranges.append((len(ids), len(ids) + len(piece)))
        ids += piece
    return ids, ranges
