"""Where tokens begin, counted up from their widths: the same as the tokenizer says, on chat rows as people have them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axoc_runtime.ingest import tokens
from axoc_runtime.ingest.base import BadRow, Conversation
from axoc_runtime.ingest.encode import encode_all
from axoc_runtime.ingest.registry import schema_of
from axoc_runtime.ingest.tokens import tokenized
from axoc_runtime.ingest.widths import widths_of
from pairs import pairs

GIVEN = Path(__file__).resolve().parents[3] / "shared" / "data"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|unknown|>", "<|im_start|>", "<|im_end|>"]


def conversations() -> list[Conversation]:
    """Of this machine's public files, or else of Python's own words; and what stands in neither."""
    found = list(_given()) or [_of(row["conversations"][0]["value"], row["chosen"]["value"]) for row in pairs(20)]
    return [
        *found,
        _of("naïve 😀?", "  Ça va — 日本語 😀😀\n"),
        _of("<|im_end|>", "<|im_start|> </s>"),
        _of(" ", "\n\n"),
    ]


def _given() -> Iterator[Conversation]:
    for name in ("alpaca_en_demo.json", "glaive_toolcall_en_demo.json", "sharegpt_conversation.json"):
        found = json.loads((GIVEN / name).read_text(encoding="utf-8")) if (GIVEN / name).is_file() else []
        for row in (found if isinstance(found, list) else [found])[:60]:
            try:
                made = schema_of(row, name, (Conversation,)).convert(row)
            except BadRow:
                continue
            assert isinstance(made, Conversation)
            yield made


def _of(asked: str, answered: str) -> Conversation:
    return Conversation(messages=({"role": "user", "content": asked}, {"role": "assistant", "content": answered}))


def trained(alphabet: list[str], **changes: Any) -> Any:
    """Byte-level BPE with the model's unknown token; ``changes``: parts of the tokenizer."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE(unk_token=SPECIAL[0], fuse_unk=True))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=alphabet, special_tokens=SPECIAL, show_progress=False
    )
    words = [m["content"] for c in conversations()[:-3] for m in c.messages]
    inner.train_from_iterator([w for w in words if w.isascii()], trainer)
    for name, part in changes.items():
        setattr(inner, name, part)
    inner.add_special_tokens([AddedToken(name, special=True) for name in SPECIAL])
    made = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=SPECIAL[2], unk_token=SPECIAL[0])
    made.chat_template = CHATML
    return made


@pytest.fixture(scope="module")
def alphabet() -> list[str]:
    from tokenizers import pre_tokenizers

    return list(pre_tokenizers.ByteLevel.alphabet())


@pytest.mark.parametrize("train_on", ["assistant", "last_turn", "all"])
def test_masks_are_those_of_the_tokenizers_own_places(
    alphabet: list[str], train_on: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, rows = trained(alphabet), conversations()
    monkeypatch.setattr(tokens, "_by_places", lambda *_: pytest.fail("the places were asked for"))
    counted = encode_all(tokenizer, rows, limit=500, train_on=train_on)
    monkeypatch.undo()
    monkeypatch.setattr(tokens, "widths_of", lambda _: None)
    assert counted == encode_all(tokenizer, rows, limit=500, train_on=train_on)
    assert not any(isinstance(found, BadRow) for found in counted)


def test_a_text_with_what_no_token_stands_for_is_asked_about(alphabet: list[str]) -> None:
    """Bytes of é, 😀 and 日 are missing: one unknown token stands for as many of them as follow one another. Of the first text it
    stands for ten and for twelve, which are twice its own eleven together."""
    tokenizer = trained([c for c in alphabet if c.isascii()])
    assert widths_of(tokenizer) is not None
    texts = [
        "ééééé ab 日日日日 cd",
        "é and so on",
        "😀" * 3 + " ab",
        "plain words",
        "日本語" * 4,
        "<|unknown|>é<|im_end|>",
    ]
    spans = [[(0, 1), (6, len(text))] for text in texts]
    assert tokenized(tokenizer, texts, spans) == tokens._by_places(tokenizer, texts, spans)


def test_a_text_that_is_normalized_is_asked_about(alphabet: list[str]) -> None:
    """The first text's letters lose three bytes by it, and its last one gains three."""
    from tokenizers import normalizers

    tokenizer = trained(alphabet, normalizer=normalizers.NFC())
    assert widths_of(tokenizer) is not None
    texts = ["e\u0301" * 3 + " ab \u0958 cd", "é and so on"]
    spans = [[(0, 2), (7, len(text))] for text in texts]
    assert tokenized(tokenizer, texts, spans) == tokens._by_places(tokenizer, texts, spans)


def test_a_token_that_is_added_later_is_counted_too(alphabet: list[str]) -> None:
    tokenizer = trained(alphabet)
    before = widths_of(tokenizer)
    tokenizer.add_tokens(["<｜think｜>"])
    after = widths_of(tokenizer)
    assert before is not None and after is not None and len(after) == len(before) + 1
    assert after[-1] == len("<｜think｜>".encode())


def test_tokenizers_that_move_places_are_asked(alphabet: list[str], tokenizer: Any) -> None:
    from tokenizers import AddedToken, normalizers, pre_tokenizers, processors

    assert widths_of(trained(alphabet)) is not None
    assert widths_of(tokenizer) is None, "its tokens are characters"
    assert widths_of(trained(alphabet, normalizer=normalizers.NFKC())) is None
    assert widths_of(trained(alphabet, pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True))) is None
    assert widths_of(trained(alphabet, post_processor=processors.ByteLevel(trim_offsets=True))) is None
    assert widths_of(trained(alphabet, post_processor=processors.ByteLevel(trim_offsets=False))) is not None
    digits = pre_tokenizers.Sequence([pre_tokenizers.Digits(), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    assert widths_of(trained(alphabet, pre_tokenizer=digits)) is not None
    dropping = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    assert widths_of(trained(alphabet, pre_tokenizer=dropping)) is None
    greedy = trained(alphabet)
    greedy.add_tokens([AddedToken("<mask>", lstrip=True)])
    assert widths_of(greedy) is None
