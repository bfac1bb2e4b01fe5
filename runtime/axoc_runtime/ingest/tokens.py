"""Text to tokens, many texts at once, and which of the tokens begin inside spans of characters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, pairwise
from typing import Any, Final
from unicodedata import is_normalized

import numpy as np

from axoc_runtime.ingest.widths import Longs, widths_of

Span = tuple[int, int]
"""Characters from, to (exclusive); or tokens."""
Tokenized = tuple[list[int], list[Span]]
"""Ids, and the ranges of them that begin inside the spans asked for."""
AT_ONCE: Final = 256
"""Texts in the tokenizer together: it holds some hundred bytes a token of each."""


def tokenized(tokenizer: Any, texts: Sequence[str], spans: Sequence[Sequence[Span]]) -> list[Tokenized]:
    """The texts as they stand: their template has written all special tokens itself. Spans are in order, and do not
    overlap."""
    if not texts:
        return []
    if not getattr(tokenizer, "is_fast", False):
        return [_by_segment(tokenizer, text, inside) for text, inside in zip(texts, spans, strict=True)]
    widths = widths_of(tokenizer) if _is_as_called(tokenizer) else None
    found: list[Tokenized] = []
    for start in range(0, len(texts), AT_ONCE):
        part, asked = texts[start : start + AT_ONCE], spans[start : start + AT_ONCE]
        found += _by_places(tokenizer, part, asked) if widths is None else _by_widths(tokenizer, widths, part, asked)
    return found


def _is_as_called(tokenizer: Any) -> bool:
    """Whether a call would change nothing of the tokenizer below before it asks it."""
    below = tokenizer.backend_tokenizer
    changed = below.truncation is not None or below.padding is not None
    return not changed and below.encode_special_tokens == tokenizer.split_special_tokens


def _by_widths(tokenizer: Any, widths: Longs, texts: Sequence[str], spans: Sequence[Sequence[Span]]) -> list[Tokenized]:
    """Where tokens begin is counted up from their widths."""
    made = tokenizer.backend_tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    every = [encoding.ids for encoding in made]
    edges = np.cumsum([0, *map(len, every)]).tolist()
    flat = np.fromiter(chain.from_iterable(every), np.int64, edges[-1])
    begins = np.concatenate([[0], np.cumsum(widths[flat])])
    found: list[Tokenized] = []
    for ids, (first, last), text, inside in zip(every, pairwise(edges), texts, spans, strict=True):
        at = _bytes_before(text, [*chain.from_iterable(inside), len(text)])
        as_it_stands = begins[last] - begins[first] == at[-1] and is_normalized("NFC", text)
        if not as_it_stands:  # some of it became another text, or no token of its own
            found += _by_places(tokenizer, [text], [inside])
            continue
        tokens = np.searchsorted(begins[first : last + 1], begins[first] + at[:-1]).tolist()
        found.append((ids, list(zip(tokens[::2], tokens[1::2], strict=True))))
    return found


def _bytes_before(text: str, characters: list[int]) -> Longs:
    """Of each of these places in the text."""
    if not text.isascii():
        characters = [len(text[:n].encode("utf-8")) for n in characters]
    return np.asarray(characters, np.int64)


def _by_places(tokenizer: Any, texts: Sequence[str], spans: Sequence[Sequence[Span]]) -> list[Tokenized]:
    """Where tokens begin is asked of the tokenizer."""
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
