"""The tokenizer in GGUF. How a text is split before it is encoded has only a name there, so the name is found by asking
llama.cpp: the first one whose tokens are those of the trained tokenizer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from axoc_runtime.exports.base import CannotExport
from axoc_runtime.exports.gguf.llama_cpp import CannotLoad, Loaded
from axoc_runtime.exports.source import Source

SPLITS: Final = (
    "gpt-2", "smollm", "llama-bpe", "qwen2", "qwen35", "gpt-4o", "tekken", "olmo", "dbrx", "stablelm2", "starcoder",
    "deepseek-llm", "deepseek-v3", "falcon", "falcon3", "command-r", "refact", "smaug-bpe", "exaone", "llama4",
    "superbpe", "seed-coder", "minimax-m2", "kimi-k2", "lfm2", "default",
)  # fmt: skip
"""Names that llama.cpp's src/llama-vocab.cpp knows, commonest first."""
PROBES: Final = (
    "Hello, world! It's 2026; they've paid $1,234.56 for 12345678 things.",
    "  two spaces,\ttabs\n\n\nthree lines \n and a trailing one ",
    "def f(x):\n    return x**2 + 0x1F  # it'll DO\r\n",
    "naïve café, Straße, Ελληνικά, русский, עברית, العربية, हिन्दी, 日本語のテスト, 한국어, 👩‍👩‍👧 🇩🇪",
    "I'M YOU'RE we'Ll http://example.com/a_b?c=1&d=%20 user@example.com ...!!!???",
    "1 22 333 4444 55555 3.14159 ١٢٣ ½ ²",
)
"""Where the known ways of splitting differ: digits, contractions, spaces, newlines, scripts, punctuation."""

BYTE: Final = re.compile(r"<0x[0-9A-F]{2}>")
WIDTH: Final = 32
"""Of the model that the vocabulary is tried with."""


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    model: str
    """``gpt2``: bytes as characters, merged by rank; ``llama``: SentencePiece's pieces with scores."""
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    scores: tuple[float, ...]


def read_vocabulary(source: Source) -> Vocabulary:
    """As many tokens as the embedding has rows. Raises CannotExport where llama.cpp has no such tokenizer."""
    raw, tokenizer, rows = _tokenizer_json(source), source.tokenizer, int(source.config.vocab_size)
    if raw["model"]["type"] != "BPE":
        raise CannotExport(f"GGUF export does not know tokenizers of the kind {raw['model']['type']}")
    byte_level = "ByteLevel" in json.dumps([raw.get("pre_tokenizer"), raw.get("decoder")])
    names = {int(i): t for t, i in tokenizer.get_vocab().items()}
    added = {int(t["id"]): bool(t["special"]) for t in raw["added_tokens"]}
    unknown = None if byte_level else raw["model"].get("unk_token")
    return Vocabulary(
        model="gpt2" if byte_level else "llama",
        tokens=(tokens := tuple(names.get(i, f"[PAD{i}]") for i in range(rows))),
        types=tuple(_kind(names.get(i), added.get(i), unknown, byte_level) for i in range(rows)),
        scores=_scores(raw["model"], tokens),
    )


def _kind(token: str | None, special: bool | None, unknown: str | None, byte_level: bool) -> int:
    """gguf.TokenType. ``special``: None of a token that was not added to the vocabulary."""
    import gguf

    types = gguf.TokenType
    if token is None:  # a row of the embedding that no token has
        return int(types.UNUSED)
    if not byte_level and token == unknown:
        return int(types.UNKNOWN)
    if special is not None:
        return int(types.CONTROL if special else types.USER_DEFINED)
    return int(types.BYTE if not byte_level and BYTE.fullmatch(token) else types.NORMAL)


def write_vocabulary(writer: Any, source: Source, vocabulary: Vocabulary, split: str) -> None:
    import gguf

    writer.add_tokenizer_model(vocabulary.model)
    if vocabulary.model == "gpt2":
        writer.add_tokenizer_pre(split)
    else:
        writer.add_token_scores(list(vocabulary.scores))
        writer.add_add_space_prefix(_prefixes_space(source))
    writer.add_token_list(list(vocabulary.tokens))
    writer.add_token_types(list(vocabulary.types))
    special = gguf.SpecialVocab(source.model, load_merges=vocabulary.model == "gpt2", n_vocab=len(vocabulary.tokens))
    special.add_special_token = {"bos": _begins(source), "eos": False}
    special.add_to_gguf(writer, quiet=True)


def find_split(source: Source, vocabulary: Vocabulary) -> str:
    """Raises CannotExport where no way of splitting that llama.cpp knows gives the trained tokenizer's tokens."""
    file = source.work / "vocabulary.gguf"
    for split in SPLITS if vocabulary.model == "gpt2" else ("default",):
        _write_smallest(source, vocabulary, split, file)
        try:
            loaded = Loaded(file)
        except CannotLoad:  # this llama.cpp does not know the name
            continue
        with loaded:
            if not differing(source, loaded, PROBES):
                return split
    message = "llama.cpp splits text in no way that gives this tokenizer's tokens"
    raise CannotExport(message, "take gguf out of export.formats; the model's tokenizer is not one of llama.cpp's")


def _write_smallest(source: Source, vocabulary: Vocabulary, split: str, file: Path) -> None:
    """The vocabulary with the smallest model that llama.cpp loads: one layer, 32 wide, of zeros."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(WIDTH)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    write_vocabulary(writer, source, vocabulary, split)
    writer.add_tensor("token_embd.weight", np.zeros((len(vocabulary.tokens), WIDTH), np.float16))
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.zeros(WIDTH, np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        writer.add_tensor(f"blk.0.{name}.weight", np.zeros((WIDTH, WIDTH), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def differing(source: Source, loaded: Loaded, texts: Iterable[str]) -> list[str]:
    """Those that llama.cpp reads as other tokens than the trained tokenizer does."""
    return [text for text in texts if loaded.tokenize(text) != list(source.tokenizer(text)["input_ids"])]


def write_header(writer: Any) -> None:
    """All but the tensors' data."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()


def _tokenizer_json(source: Source) -> dict[str, Any]:
    path: Path = source.model / "tokenizer.json"
    if not path.is_file():
        raise CannotExport("the model has no tokenizer.json, which GGUF export reads", "save a fast tokenizer with it")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _scores(model: dict[str, Any], tokens: Sequence[str]) -> tuple[float, ...]:
    """Pieces that are merged earlier score higher, which is all that SentencePiece's merging asks of a score."""
    rank: dict[str, int] = {}
    for index, merge in enumerate(model.get("merges") or []):
        left, right = merge if isinstance(merge, list) else merge.split(" ", 1)
        rank.setdefault(left + right, index)
    return tuple(-float(rank.get(token, -1) + 1) for token in tokens)


def _prefixes_space(source: Source) -> bool:
    plain = source.tokenizer.convert_ids_to_tokens(source.tokenizer("a", add_special_tokens=False)["input_ids"])
    return bool(plain) and str(plain[0]).startswith("▁")


def _begins(source: Source) -> bool:
    """Does the tokenizer itself put the token that begins a sequence?"""
    ids = source.tokenizer("a")["input_ids"]
    return bool(ids) and ids[0] == source.tokenizer.bos_token_id
