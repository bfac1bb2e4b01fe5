"""How many bytes of a text each token stands for, of tokenizers whose tokens are the text's bytes as they stand.

Where a token begins then follows from the ids before it, and the tokenizer need not keep the places: it is a fifth faster so.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

Longs = NDArray[np.int64]
STANDS_FOR_ANYTHING: Final = 1 << 40
"""The width of tokens that stand for what is not in the vocabulary: more than any text has, so no sum comes out with them."""
BYTE_FALLBACK: Final = re.compile(r"<0x[0-9A-F]{2}>")
_KNOWN: Final[WeakKeyDictionary[Any, tuple[int, Longs | None]]] = WeakKeyDictionary()
"""Tokenizer -> (size of its vocabulary, widths)."""


def widths_of(tokenizer: Any) -> Longs | None:
    """By id; None where tokens are not bytes as they stand, or the tokenizer gives them other places than their own."""
    size = len(tokenizer)
    known = _KNOWN.get(tokenizer)
    if known is None or known[0] != size:
        known = (size, _widths(tokenizer) if _keeps_bytes(tokenizer) else None)
        _KNOWN[tokenizer] = known
    return known[1]


def _keeps_bytes(tokenizer: Any) -> bool:
    """Byte-level BPE that leaves text in Unicode's form C as it is, called in transformers' own way."""
    from transformers import PreTrainedTokenizerFast as Fast

    kind = type(tokenizer)
    if not isinstance(tokenizer, Fast) or any(
        getattr(kind, n) is not getattr(Fast, n) for n in ("__call__", "_encode_plus")
    ):
        return False
    backend = tokenizer.backend_tokenizer
    trimmed = '"trim_offsets":true' in json.dumps(_state(backend.post_processor), separators=(",", ":"))
    greedy = any(token.lstrip or token.rstrip for token in tokenizer.added_tokens_decoder.values())
    leaves_text = _state(backend.normalizer) in ({}, {"type": "Sequence", "normalizers": []}, {"type": "NFC"})
    return _is_bytes_bpe(backend) and leaves_text and not trimmed and not greedy


def _is_bytes_bpe(backend: Any) -> bool:
    from tokenizers import models

    model = backend.model
    if not isinstance(model, models.BPE) or model.continuing_subword_prefix or model.end_of_word_suffix:
        return False
    state = _state(backend.pre_tokenizer)
    *splits, last = state.get("pretokenizers", [state])
    kept = all(s.get("type") in ("Split", "Digits") and s.get("behavior") != "Removed" for s in splits)
    return kept and last.get("type") == "ByteLevel" and not last["add_prefix_space"]


def _state(part: Any) -> dict[str, Any]:
    """A part of a tokenizer as tokenizer.json has it."""
    found: dict[str, Any] = {} if part is None else json.loads(part.__getstate__())
    return found


def _widths(tokenizer: Any) -> Longs:
    """Byte-level tokens are written with a character a byte, and added ones as they stand in the text."""
    vocabulary = tokenizer.get_vocab()
    found = np.zeros(max(vocabulary.values()) + 1, np.int64)
    for token, number in vocabulary.items():
        unknown = token == tokenizer.backend_tokenizer.model.unk_token or BYTE_FALLBACK.fullmatch(token)
        found[number] = STANDS_FOR_ANYTHING if unknown else len(token)
    for number, added in tokenizer.added_tokens_decoder.items():
        found[number] = max(found[number], len(added.content.encode("utf-8")))
    return found
