"""Masks, proved by decoding them: the labels are what the assistant says, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from axoc_runtime.ingest.base import BadRow, Conversation, Document
from axoc_runtime.ingest.encode import IGNORED, encode, encode_all, labelled
from axoc_runtime.ingest.tokens import _by_segment, tokenized
from axoc_runtime.models.tokenizer import PLAIN_TEMPLATE
from hypothesis import given, settings
from hypothesis import strategies as st


def said(*turns: str) -> Conversation:
    """Turns of user and assistant in alternation."""
    roles = ("user", "assistant")
    return Conversation(messages=tuple({"role": roles[i % 2], "content": t} for i, t in enumerate(turns)))


def text_of(tokenizer: Any, ids: list[int]) -> str:
    return "".join(tokenizer.convert_ids_to_tokens(ids))


def trained_text(tokenizer: Any, encoded: Any) -> str:
    return text_of(tokenizer, [t for t in encoded.labels if t != IGNORED])


def test_only_the_answer_and_the_end_of_its_turn_are_trained_on(tokenizer: Any) -> None:
    (row,) = encode(tokenizer, said("2+2?", "4"), limit=999)
    assert text_of(tokenizer, row.input_ids) == "<s>system\nBe brief.</s>\n<s>user\n2+2?</s>\n<s>assistant\n4</s>\n"
    assert trained_text(tokenizer, row) == "4</s>"
    assert [t for t, on in zip(row.input_ids, row.labels, strict=True) if on != IGNORED and t != on] == []


def test_every_turn_of_the_assistant_counts(tokenizer: Any) -> None:
    (row,) = encode(tokenizer, said("a", "bb", "c", "dd"), limit=999)
    assert trained_text(tokenizer, row) == "bb</s>dd</s>"


def test_an_answer_that_quotes_the_question_is_trained_on_once(tokenizer: Any) -> None:
    (row,) = encode(tokenizer, said("say x", "say x"), limit=999)
    assert trained_text(tokenizer, row) == "say x</s>"


@settings(max_examples=60)
@given(turns=st.lists(st.text(alphabet="ab \né?", min_size=1, max_size=8), min_size=2, max_size=6))
def test_mask_is_the_answers_whatever_is_said(tokenizer: Any, turns: list[str]) -> None:
    turns = turns[: len(turns) // 2 * 2]
    (row,) = encode(tokenizer, said(*turns), limit=9999)
    assert trained_text(tokenizer, row) == "".join(f"{t}</s>" for t in turns[1::2])
    assert row.untrained_turns == 0


def test_spec_system_prompt_is_added_where_the_row_has_none(tokenizer: Any) -> None:
    own = Conversation(messages=({"role": "system", "content": "mine"}, *said("q", "a").messages))
    (row,) = encode(tokenizer, said("q", "a"), limit=999, system_prompt="theirs")
    (kept,) = encode(tokenizer, own, limit=999, system_prompt="theirs")
    assert "theirs" in text_of(tokenizer, row.input_ids)
    assert "mine" in text_of(tokenizer, kept.input_ids) and "theirs" not in text_of(tokenizer, kept.input_ids)


def test_long_rows_are_cut_on_the_right_and_counted(tokenizer: Any) -> None:
    whole = encode(tokenizer, said("q", "answer"), limit=999)[0]
    (row,) = encode(tokenizer, said("q", "answer"), limit=len(whole.input_ids) - 4)
    assert row.cut and not whole.cut
    assert trained_text(tokenizer, row) == "answ"


def test_a_template_that_rewrites_history_trains_on_what_stays(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As reasoning models do: only the last turn keeps what was thought."""
    template = (
        "{% for m in messages %}<s>{{ m['role'] }}\n{% if m['role'] == 'assistant' and loop.last %}(thought) {% endif %}"
        "{{ m['content'] }}</s>\n{% endfor %}{% if add_generation_prompt %}<s>assistant\n{% endif %}"
    )
    monkeypatch.setattr(tokenizer, "chat_template", template)
    (row,) = encode(tokenizer, said("a", "b", "c", "d"), limit=999)
    assert trained_text(tokenizer, row) == "(thought) d</s>"
    assert row.untrained_turns == 1


def test_a_template_that_refuses_is_a_bad_row(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", "{{ raise_exception('roles must alternate') }}")
    with pytest.raises(BadRow, match="roles must alternate"):
        encode(tokenizer, said("a", "b"), limit=99)


def test_plain_template_ends_each_answer(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", PLAIN_TEMPLATE)
    (row,) = encode(tokenizer, said("a", "b"), limit=999)
    assert text_of(tokenizer, row.input_ids) == "User: a\nAssistant: b</s>\n"
    assert trained_text(tokenizer, row) == "b</s>"


def test_documents_are_windows_that_lose_nothing_and_end_once(tokenizer: Any) -> None:
    rows = encode(tokenizer, Document(text="abcdefghij"), limit=4)
    assert "".join(text_of(tokenizer, r.input_ids) for r in rows) == "abcdefghij</s>"
    assert all(r.labels == r.input_ids for r in rows)
    assert max(len(r.input_ids) for r in rows) == 4


def test_tokenizers_without_offsets_give_the_same_mask(tokenizer: Any) -> None:
    (row,) = encode(tokenizer, said("a", "bb", "c", "dd"), limit=999)
    text = text_of(tokenizer, row.input_ids)
    spans = [(text.index("bb"), text.index("bb") + 6), (text.index("dd"), text.index("dd") + 6)]
    ids, ranges = _by_segment(tokenizer, text, spans)
    assert ids == row.input_ids
    assert labelled(ids, ranges) == row.labels


def test_many_together_are_as_each_alone(tokenizer: Any) -> None:
    examples = [said("a", "bb"), Document(text="abcdefgh"), said("c", "dd", "e", "ff"), Document(text="x")]
    alone = [encode(tokenizer, e, limit=30) for e in examples]
    assert encode_all(tokenizer, examples, limit=30) == alone


def test_one_bad_row_spoils_no_other(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = "{% if messages[0]['content'] == 'no' %}{{ raise_exception('refused') }}{% endif %}" + PLAIN_TEMPLATE
    monkeypatch.setattr(tokenizer, "chat_template", refusing)
    first, second, third = encode_all(tokenizer, [said("a", "b"), said("no", "b"), said("c", "d")], limit=99)
    assert isinstance(second, BadRow) and "refused" in str(second)
    assert [trained_text(tokenizer, r[0]) for r in (first, third) if not isinstance(r, BadRow)] == ["b</s>", "d</s>"]


@pytest.fixture(scope="module")
def merging() -> Any:
    """Tokens of several characters, and of parts of one: byte-level BPE, trained here."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, initial_alphabet=alphabet, special_tokens=["</s>"], show_progress=False
    )
    inner.train_from_iterator(["abba ab aab baab abab\n" * 50, "the then them there\n" * 50], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>")


@settings(max_examples=200)
@given(text=st.text(alphabet="ab the\né😀</s>", max_size=40), cuts=st.lists(st.integers(0, 40), max_size=4))
def test_ranges_are_the_tokens_that_begin_inside(merging: Any, text: str, cuts: list[int]) -> None:
    """Against the list of all places, which the code does not make because it is slow."""
    edges = sorted({min(c, len(text)) for c in cuts})
    spans = list(zip(edges[::2], edges[1::2], strict=False))
    ((ids, ranges),) = tokenized(merging, [text], [spans])
    places = merging(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    wanted = [i for i, (start, end) in enumerate(places) if end > start and any(a <= start < b for a, b in spans)]
    assert [i for start, stop in ranges for i in range(start, stop)] == wanted
    assert ids == merging(text, add_special_tokens=False)["input_ids"]
