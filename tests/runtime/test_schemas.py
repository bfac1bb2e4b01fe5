"""Every built-in schema: real rows go to a file, are read from it, recognized, and mean what they said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pytest
from axoc_runtime.ingest.base import (
    BadRow,
    Conversation,
    Document,
    Pictured,
    Preference,
    Prompt,
    Rated,
    Record,
    Schema,
    Segments,
    Steps,
    Tokens,
)
from axoc_runtime.ingest.gather import Gathered
from axoc_runtime.ingest.registry import BUILTIN, formats, named, schema_of

from runtime import format_rows
from runtime.test_formats import rows

SFT = format_rows.sft_rows(*format_rows.GIVEN[0])
OTHERS = format_rows.other_rows(*format_rows.GIVEN[0])
SAME = {"alpaca_system": "alpaca", "alpaca_chat": "alpaca", "openai_tools": "chat", "intel": "preference"}
"""Formats that another one's auto-detection stands for: it gives the same examples."""
TEXTS = (Conversation, Document, Segments, Tokens)
ACCEPTS: dict[str, tuple[type, ...]] = {
    "preference": (Preference,), "argilla": (Preference,), "intel": (Preference,), "ultrafeedback": (Preference,),
    "reward_pairs": (Preference,), "rated": (Rated,), "stepwise": (Steps,), "prompts": (Prompt,),
    "vision_chat": (Pictured,), "vision_qa": (Pictured,),
}  # fmt: skip


def schema(name: str) -> Schema:
    found = named(name)
    assert isinstance(found, Schema)
    return found


def told(example: Conversation) -> list[tuple[str, str]]:
    """Role and text of each turn; a call as the name of what it calls."""
    return [
        (m["role"], m["content"] or ", ".join(c["function"]["name"] for c in m["tool_calls"])) for m in example.messages
    ]


@pytest.mark.parametrize("name", SFT)
@pytest.mark.parametrize("given", range(0, 20, 5))
def test_conversations_mean_what_they_say(name: str, given: int) -> None:
    row, expected = format_rows.sft_rows(*format_rows.GIVEN[given])[name]
    read = json.loads(json.dumps(row))
    made = schema(name).convert(read)
    assert isinstance(made, Conversation) and told(made) == expected
    found = schema_of(read, "here:1", TEXTS)
    assert found.name == SAME.get(name, name)
    assert found.convert(read) == made


def real_rows(name: str) -> list[dict[str, Any]]:
    if name == "openassistant_messages":  # a message a row: those of a tree together
        trees = [format_rows.messages_of_a_tree(*given, tree=f"t{n}") for n, given in enumerate(format_rows.GIVEN)]
        return [row for tree in trees for row in tree]
    if name in SFT:
        return [format_rows.sft_rows(*given)[name][0] for given in format_rows.GIVEN]
    return [format_rows.other_rows(*given)[name] for given in format_rows.GIVEN]


def plain(value: Any) -> Any:
    """Without what is null: a table has a column in every row, and JSON only where there is something."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items() if inner is not None}
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("name", [*SFT, *OTHERS])
def test_real_rows_survive_the_way_through_files(tmp_path: Path, name: str) -> None:
    """Written, read, their format found, and converted: as the rows themselves are."""
    kinds, given = ACCEPTS.get(name, TEXTS), real_rows(name)
    ways = []
    if name != "anthropic_tools":  # whose contents are texts and lists, and a table's column is of one type
        pa.feather.write_feather(pa.Table.from_pylist(given), tmp_path / "a.feather")
        ways.append("a.feather")
    if name != "vision_qa":  # whose bytes JSON has no words for
        (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))
        (tmp_path / "a.json").write_text(json.dumps(given, indent=2))
        ways += ["a.jsonl", "a.json"]
    records = [Record(place="here", row=row) for row in given]
    direct = [schema(name).convert(r.row) for r in schema(name).gather(records)]
    assert len(direct) == len(format_rows.GIVEN)
    for way in ways:
        found = Gathered(rows(tmp_path, way), None, kinds)
        made = [found.schema.convert(r.row) for r in found if found.schema is not None]
        assert found.schema is not None and found.schema.name == SAME.get(name, name)
        assert [plain(vars(m)) for m in made] == [plain(vars(m)) for m in direct], way


def test_what_is_no_conversation_means_what_it_says() -> None:
    q, a, w = format_rows.GIVEN[0]
    made: dict[str, Any] = {name: schema(name).convert(row) for name, row in OTHERS.items()}
    assert made["completion"] == made["raw_text"] == Document(text=a)
    assert made["segments"].parts == ((f"{q}\n", False), (a, True))
    assert made["tokenized"] == Tokens(input_ids=(1, 2, 3), labels=(-100, 2, 3))
    for name in ("preference", "argilla", "intel", "ultrafeedback", "reward_pairs"):
        pair = made[name]
        assert (pair.chosen["content"], pair.rejected["content"]) == (a, w), name
        assert pair.prompt.messages[-1] == {"role": "user", "content": q}, name
    assert made["rated"].good is True and made["rated"].completion["content"] == a
    assert made["stepwise"].right == (True, False)
    assert made["prompts"].answer == a
    assert len(made["vision_chat"].images) == len(made["vision_qa"].images) == 1


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_conversation_is_recognized(name: str) -> None:
    found = schema_of(OTHERS[name], "here:1", ACCEPTS.get(name, TEXTS))
    assert found.name == SAME.get(name, name)


def test_there_are_thirty_formats_and_each_has_a_row_here() -> None:
    taught = {n for n, f in formats().items() if isinstance(f, Schema) and n in BUILTIN}
    assert taught == {*SFT, *OTHERS}
    assert len(BUILTIN) >= 30


def test_tools_and_calls_come_out_in_one_spelling() -> None:
    openai, anthropic = (schema(n).convert(SFT[n][0]) for n in ("openai_tools", "anthropic_tools"))
    assert isinstance(openai, Conversation) and isinstance(anthropic, Conversation)
    for made in (openai, anthropic):
        assert made.messages[1]["tool_calls"] == [
            {"type": "function", "function": {"name": "look_up", "arguments": {"of": "x"}}, "id": "1"}
        ]
        assert made.messages[2]["tool_call_id"] == "1"
        assert [t["function"]["name"] for t in made.tools] == ["look_up"]
        assert made.tools[0]["function"]["parameters"]["type"] == "object"


@pytest.mark.parametrize("name", ["preference", "rated", "prompts"])
def test_tools_are_offered_where_answers_are_compared_too(name: str) -> None:
    row = OTHERS[name] | {"tools": SFT["openai_tools"][0]["tools"]}
    found = schema_of(row, "here:1", ACCEPTS[name])
    made: Any = found.convert(row)
    assert found.name == name and [t["function"]["name"] for t in made.prompt.tools] == ["look_up"]


def test_anthropics_blocks_are_taken_whole_or_refused() -> None:
    row = SFT["anthropic_tools"][0]
    made = schema("anthropic_tools").convert(row | {"system": [{"type": "text", "text": "Be brief."}]})
    assert isinstance(made, Conversation) and made.messages[0] == {"role": "system", "content": "Be brief."}
    said = json.loads(json.dumps(row["messages"]))
    said[2]["content"][0]["content"] = [{"type": "image", "source": {"type": "base64", "data": "x"}}]
    with pytest.raises(BadRow) as caught:
        schema("anthropic_tools").convert(row | {"messages": said})
    assert (caught.value.column, caught.value.check) == ("messages[2]", "image")


def spoken(*turns: tuple[str, str], **more: Any) -> dict[str, Any]:
    return {"conversations": [{"from": who, "value": what} for who, what in turns], **more}


CALL = '{"name": "f", "arguments": {"x": 1}}'
BAD: list[tuple[str, dict[str, Any], str, str]] = [
    ("sharegpt", spoken(("gpt", "a"), ("human", "q")), "conversations", "role-order"),
    ("sharegpt", spoken(("human", "q"), ("system", "s"), ("gpt", "a")), "conversations", "role-order"),
    ("sharegpt", spoken(("human", "q"), ("alien", "a")), "conversations[1]", "unknown-role"),
    ("sharegpt", spoken(("human", "q"), ("gpt", " ")), "conversations[1]", "empty"),
    ("sharegpt", spoken(("human", "q"), ("function_call", CALL), ("gpt", "a")), "conversations[2]", "tool-call"),
    ("sharegpt", spoken(("human", "q"), ("observation", "r"), ("gpt", "a")), "conversations[1]", "tool-call"),
    ("sharegpt", spoken(("human", "q"), ("function_call", "{")), "conversations[1]", "tool-call"),
    ("sharegpt", spoken(("human", "q"), ("gpt", "a"), tools="["), "tools", "tool-call"),
    ("chat", {"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "messages[0]", "image"),
    ("chat", {"messages": [{"role": "user", "content": "q", "tool_calls": [1]}]}, "messages[0]", "tool-call"),
    ("chat", {"messages": [{"role": "user", "content": 3}]}, "messages[0]", "type"),
    ("chat", {"messages": [{"role": "assistant", "content": "a", "weight": 0.5}]}, "messages[0]", "value"),
    ("alpaca", {"instruction": "i", "output": "o", "history": [["only one"]]}, "history[0]", "type"),
    ("tokenized", {"input_ids": [1, -2]}, "input_ids", "type"),
    ("tokenized", {"input_ids": [1, 2], "labels": [1]}, "labels", "value"),
    ("tokenized", {"input_ids": [1, 2], "labels": [2, -100]}, "labels", "value"),
    ("segments", {"segments": [{"text": "a", "label": False}]}, "segments", "empty"),
    ("openassistant", {"prompt": {"text": "", "role": "prompter"}, "message_tree_id": "t"}, "prompt", "empty"),
    ("ultrafeedback", {"instruction": "q", "completions": [{"response": "a"}] * 2}, "completions[0]", "type"),
    ("reward_pairs", {"chosen": "no transcript", "rejected": "none"}, "chosen", "type"),
    ("stepwise", {"prompt": "q", "completions": ["a"], "labels": [True, False]}, "labels", "value"),
    ("vision_chat", {"messages": [{"role": "user", "content": "<image><image>"},
                                  {"role": "assistant", "content": "a"}], "images": [b""]}, "messages", "image"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "row", "column", "check"), BAD)
def test_bad_rows_name_column_and_kind(name: str, row: dict[str, Any], column: str, check: str) -> None:
    with pytest.raises(BadRow) as caught:
        schema(name).convert(row)
    assert (caught.value.column, caught.value.check) == (column, check)


def test_results_of_several_calls_are_matched_by_their_ids() -> None:
    calls = [{"id": i, "function": {"name": "f", "arguments": {}}} for i in "ab"]
    answers = [{"role": "tool", "tool_call_id": i, "content": "r"} for i in "ba"]
    asked = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "", "tool_calls": calls}]
    last = {"role": "assistant", "content": "done"}
    schema("chat").convert({"messages": [*asked, *answers, last]})
    with pytest.raises(BadRow, match="before the result of the call before it"):
        schema("chat").convert({"messages": [*asked, answers[0], last]})
    with pytest.raises(BadRow, match="answers the call 'c'"):
        schema("chat").convert({"messages": [*asked, {**answers[0], "tool_call_id": "c"}]})


def test_alpaca_with_each_row_once_more_as_text_is_alpaca() -> None:
    """As the file was published."""
    row = SFT["alpaca"][0]
    assert schema_of(row | {"text": f"Below is an instruction. {row}"}, "here:1", TEXTS).name == "alpaca"


def test_a_prompt_and_its_completion_may_be_turns() -> None:
    (asked, said), system = SFT["chat"][0]["messages"], {"role": "system", "content": "Be brief."}
    made = schema("question_answer").convert({"prompt": [system, asked], "completion": [said]})
    assert isinstance(made, Conversation) and made.messages == (system, asked, said)
    with pytest.raises(BadRow) as caught:
        schema("question_answer").convert({"prompt": [system], "completion": []})
    assert caught.value.column == "completion"


PICTURE = {"type": "base64", "media_type": "image/png", "data": "iVBORw0K"}
PARTS: list[tuple[dict[str, Any], Any]] = [
    ({"type": "image_url", "image_url": {"url": "a.png"}}, "a.png"),
    ({"type": "input_image", "image_url": "a.png"}, "a.png"),
    ({"type": "image", "image": {"bytes": b"x", "path": None}}, {"bytes": b"x", "path": None}),
    ({"type": "image", "source": PICTURE}, "data:image/png;base64,iVBORw0K"),
    ({"type": "image", "source": {"type": "url", "url": "https://a/b.png"}}, "https://a/b.png"),
]


@pytest.mark.parametrize(("part", "image"), PARTS)
def test_images_within_turns_in_every_spelling(part: dict[str, Any], image: Any) -> None:
    (asked, said) = SFT["chat"][0]["messages"]
    row = {"messages": [{**asked, "content": [part, {"type": "text", "text": "What is it?"}]}, said]}
    assert schema_of(row, "here:1", (Pictured,)).name == "vision_chat"
    made = schema("vision_chat").convert(row)
    assert isinstance(made, Pictured) and made.images == (image,)
    assert made.conversation.messages[0]["content"] == "<image>What is it?"


def test_images_are_never_left_out_in_silence() -> None:
    record = Record(place="here:1", row={"instruction": "What is it?", "output": "A cat", "image": "cat.png"})
    with pytest.raises(Exception, match="no known format"):
        schema_of(record.row, record.place, TEXTS)


@pytest.mark.parametrize("name", ["chat", "sharegpt"])
def test_turns_with_answers_beside_are_pairs_and_not_conversations(name: str) -> None:
    """Trained on as conversations, their answers would be left out in silence."""
    row = SFT[name][0] | {"chosen": "a", "rejected": "b"}
    assert schema_of(row, "here:1", TEXTS).name == "preference"
