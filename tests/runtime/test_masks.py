"""What is trained on, proved by decoding it: turns, weights, tool calls, segments, and rows that are too long."""

from __future__ import annotations

from typing import Any

import pytest
from axoc_runtime.ingest.base import BadRow, Conversation, Document, Segments, Tokens
from axoc_runtime.ingest.cut import cut
from axoc_runtime.ingest.encode import IGNORED, Encoded, encode, encode_all
from axoc_runtime.ingest.schemas.chat import Chat
from axoc_runtime.ingest.spelled import writes_calls
from hypothesis import given, settings
from hypothesis import strategies as st

TOOL_TEMPLATE = (
    "{% if tools %}<s>system\n{% for t in tools %}{{ t['function']['name'] }}{% endfor %}</s>\n{% endif %}"
    "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}{% for c in m['tool_calls'] or [] %}"
    "[{{ c['function']['name'] }} {{ c['function']['arguments'] | tojson }}]{% endfor %}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)
CALLED = {
    "messages": [
        {"role": "user", "content": "sum 1 2"},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "add", "arguments": '{"x": 1}'}}]},
        {"role": "tool", "content": "3"},
        {"role": "assistant", "content": "three"},
    ],
    "tools": [{"name": "add", "description": "adds", "parameters": {"type": "object"}}],
}
CHAT = [("user", "q"), ("assistant", "one"), ("user", "r"), ("assistant", "two")]


def said(*turns: tuple[str, str], **weights: int) -> Conversation:
    messages = [{"role": r, "content": c} | ({"weight": weights[c]} if c in weights else {}) for r, c in turns]
    made = Chat().convert({"messages": messages})
    assert isinstance(made, Conversation)
    return made


def text_of(tokenizer: Any, ids: list[int]) -> str:
    return "".join(tokenizer.convert_ids_to_tokens(ids))


def learned(tokenizer: Any, row: Encoded) -> str:
    assert all(label in (IGNORED, token) for token, label in zip(row.input_ids, row.labels, strict=True))
    return text_of(tokenizer, [label for label in row.labels if label != IGNORED])


def one(tokenizer: Any, example: Any, *, limit: int = 999, **more: Any) -> Encoded:
    (row,) = encode(tokenizer, example, limit=limit, **more)
    return row


def test_the_last_turn_or_all_of_it(tokenizer: Any) -> None:
    assert learned(tokenizer, one(tokenizer, said(*CHAT), train_on="last_turn")) == "two</s>"
    whole = one(tokenizer, said(*CHAT), train_on="all")
    assert learned(tokenizer, whole) == text_of(tokenizer, whole.input_ids)


@pytest.mark.parametrize(("train_on", "expected"), [("assistant", "two</s>"), ("last_turn", "two</s>")])
def test_a_turn_of_weight_0_is_read_and_not_trained_on(tokenizer: Any, train_on: str, expected: str) -> None:
    row = one(tokenizer, said(*CHAT, one=0), train_on=train_on)
    assert learned(tokenizer, row) == expected and "one</s>" in text_of(tokenizer, row.input_ids)


def test_the_last_turn_of_weight_0_leaves_nothing(tokenizer: Any) -> None:
    assert learned(tokenizer, one(tokenizer, said(*CHAT, two=0), train_on="last_turn")) == ""
    assert learned(tokenizer, one(tokenizer, said(*CHAT, two=0))) == "one</s>"


def test_calls_are_trained_on_and_results_are_not(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", TOOL_TEMPLATE)
    assert writes_calls(tokenizer)
    row = one(tokenizer, Chat().convert(CALLED))
    assert learned(tokenizer, row) == '[add {"x": 1}]</s>three</s>'
    assert text_of(tokenizer, row.input_ids).startswith("<s>system\nadd</s>")


def test_a_template_without_tools_loses_nothing(tokenizer: Any) -> None:
    assert not writes_calls(tokenizer)
    row = one(tokenizer, Chat().convert(CALLED))
    assert learned(tokenizer, row) == ('<tool_call>\n{"name": "add", "arguments": {"x": 1}}\n</tool_call></s>three</s>')
    text = text_of(tokenizer, row.input_ids)
    assert "<s>user\n<tool_response>\n3\n</tool_response></s>" in text
    assert text.startswith("<s>system\n") and '"description": "adds"' in text.split("</s>")[0]


def test_segments_are_taken_as_they_are(tokenizer: Any) -> None:
    parts = (("<s>ask\n", False), ("answer</s>", True), ("\nmore", False), ("", True), ("end</s>", True))
    row = one(tokenizer, Segments(parts=parts))
    assert text_of(tokenizer, row.input_ids) == "<s>ask\nanswer</s>\nmoreend</s>"
    assert learned(tokenizer, row) == "answer</s>end</s>"


def test_tokens_are_taken_as_they_are(tokenizer: Any) -> None:
    row = one(tokenizer, Tokens(input_ids=(1, 2, 3, 4), labels=(IGNORED, 2, IGNORED, 4)))
    assert (row.input_ids, row.labels) == ([1, 2, 3, 4], [IGNORED, 2, IGNORED, 4])


def test_what_begins_and_ends_a_text_is_there_once(tokenizer: Any) -> None:
    document = one(tokenizer, Document(text="abc"))
    assert document.input_ids.count(tokenizer.eos_token_id) == 1 and document.input_ids[-1] == tokenizer.eos_token_id
    ended = one(tokenizer, Document(text="abc</s>"))
    assert ended.input_ids == document.input_ids
    chat = one(tokenizer, said(("user", "q"), ("assistant", "a")))
    begins = tokenizer.bos_token_id
    assert chat.input_ids[0] == begins and chat.input_ids[1] != begins
    assert learned(tokenizer, chat).count("</s>") == 1


@pytest.mark.parametrize("puts_one", [True, False])
def test_the_plain_template_begins_as_the_tokenizer_begins(tokenizer: Any, puts_one: bool) -> None:
    from copy import deepcopy

    from axoc_runtime.models.tokenizer import plain_template
    from tokenizers.processors import TemplateProcessing

    own = deepcopy(tokenizer)
    if puts_one:
        begins = [("<s>", own.bos_token_id)]
        own.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=begins)
    own.chat_template = plain_template(own)
    row = one(own, said(*CHAT))
    assert row.input_ids.count(own.bos_token_id) == int(puts_one) == int(row.input_ids[0] == own.bos_token_id)
    assert learned(own, row) == "one</s>two</s>"
    document = one(own, Document(text="abc"))
    assert document.input_ids.count(own.bos_token_id) == int(puts_one)
    if puts_one:
        for text in ("<s>abc", "<s>abc</s>", "<s><s>abc</s></s>"):
            assert one(own, Document(text=text)) == document


def test_a_row_that_is_cut_on_the_left_keeps_its_beginning_token_and_its_end(tokenizer: Any) -> None:
    whole = one(tokenizer, said(*CHAT))
    row = one(tokenizer, said(*CHAT), limit=8, truncation="left")
    assert row.cut and len(row.input_ids) == 8
    assert row.input_ids == [whole.input_ids[0], *whole.input_ids[-7:]]
    assert learned(tokenizer, row) == "two</s>"


def test_a_row_may_be_dropped_and_the_others_stay(tokenizer: Any) -> None:
    rows = [said(("user", "q"), ("assistant", "a" * n)) for n in (1, 500, 2)]
    first, second, third = encode_all(tokenizer, rows, limit=99, truncation="drop")
    assert isinstance(second, BadRow) and second.check == "too-long" and "max_seq_length" in second.fix
    assert not isinstance(first, BadRow) and not isinstance(third, BadRow)


@settings(max_examples=60)
@given(
    turns=st.lists(st.text(alphabet="ab é\n?", min_size=1, max_size=30), min_size=2, max_size=8),
    limit=st.integers(8, 60),
)
def test_a_split_trains_on_all_that_was_said(tokenizer: Any, turns: list[str], limit: int) -> None:
    turns = [t if t.strip() else "x" for t in turns[: len(turns) // 2 * 2]]
    example = said(*[(("user", "assistant")[i % 2], t) for i, t in enumerate(turns)])
    whole, rows = one(tokenizer, example, limit=9999), encode(tokenizer, example, limit=limit, truncation="split")
    assert all(len(r.input_ids) <= limit for r in rows)
    pieces = [whole.labels[i : i + limit] for i in range(0, len(whole.labels), limit)]
    assert [r.labels for r in rows] == [p for p in pieces if any(x != IGNORED for x in p[1:])]


@given(
    length=st.integers(1, 40),
    limit=st.integers(1, 40),
    how=st.sampled_from(["right", "left", "split"]),
)
def test_what_fits_is_left_alone_and_what_does_not_is_a_part_of_it(length: int, limit: int, how: str) -> None:
    ids = list(range(length))
    rows = cut(ids, list(ids), limit, how, first=0)
    if length <= limit:
        assert rows == [(ids, ids)]
    for found, labels in rows:
        assert found == labels and len(found) <= limit
        assert found[0] == 0 or how == "split"
    if how == "left" and length > limit > 1:
        assert rows[0][0][-1] == length - 1
