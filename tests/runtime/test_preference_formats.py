"""Pairs, rated answers and prompts: how rows are written, how they are told apart, what becomes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from axoc_runtime import prepare
from axoc_runtime.errors import RuntimeFailure
from axoc_runtime.ingest.base import BadRow, Conversation, Preference, Prompt, Rated
from axoc_runtime.ingest.registry import schema_for
from axoc_runtime.objectives.registry import named
from pairs import pairs as real_pairs

from runtime.jobs import make_job

PREFERENCE = {
    "beta": 0.1, "label_smoothing": 0.0, "simpo_gamma": 1.0, "desirable_weight": 1.0, "undesirable_weight": 1.0,
    "reference": "model",
}  # fmt: skip
ASKED = [{"role": "user", "content": "q"}]
GOOD = {"role": "assistant", "content": "good"}
POOR = {"role": "assistant", "content": "poor"}

PAIRS: list[dict[str, Any]] = [
    {"prompt": "q", "chosen": "good", "rejected": "poor"},
    {"question": "q", "chosen": "good", "rejected": "poor"},
    {"input": "q", "chosen": "good", "rejected": "poor", "generations": ["good", "poor"]},
    {"prompt": ASKED, "chosen": [GOOD], "rejected": [POOR]},
    {"prompt": "q", "chosen": [*ASKED, GOOD], "rejected": [*ASKED, POOR]},
    {"chosen": [*ASKED, GOOD], "rejected": [*ASKED, POOR]},
    {"messages": ASKED, "chosen": GOOD, "rejected": POOR},
    {
        "conversations": [{"from": "human", "value": "q"}],
        "chosen": {"from": "gpt", "value": "good"},
        "rejected": {"from": "gpt", "value": "poor"},
    },
]


@pytest.mark.parametrize("row", PAIRS)
def test_every_way_to_write_a_pair_is_the_same_pair(row: dict[str, Any]) -> None:
    schema = schema_for(frozenset(row), "here:1", (Preference,))
    made = schema.convert(row)
    assert made == Preference(prompt=Conversation(messages=tuple(ASKED)), chosen=GOOD, rejected=POOR)


def test_a_system_prompt_of_its_own_column_comes_first() -> None:
    made = schema_for(frozenset({"prompt", "chosen", "rejected", "system"}), "here:1").convert(
        {"system": "s", "prompt": "q", "chosen": [*ASKED, GOOD], "rejected": "poor"}
    )
    assert isinstance(made, Preference)
    assert [m["role"] for m in made.prompt.messages] == ["system", "user"]


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"prompt": "q", "chosen": "a", "rejected": "a"}, "rejected", "same as chosen"),
    ({"prompt": "q", "chosen": "a", "rejected": ""}, "rejected", "is empty"),
    ({"prompt": "q", "chosen": 3, "rejected": "b"}, "chosen", "expected text"),
    ({"chosen": "a", "rejected": "b"}, "chosen", "must end with a user's turn"),
    ({"prompt": [GOOD], "chosen": "a", "rejected": "b"}, "prompt", "must end with a user's turn"),
    ({"prompt": "p", "chosen": [*ASKED, GOOD], "rejected": "b"}, "chosen", "does not begin with the prompt"),
    ({"prompt": "q", "chosen": ASKED, "rejected": "b"}, "chosen", "must end with a turn of the assistant"),
]


@pytest.mark.parametrize(("row", "column", "message"), WRONG)
def test_a_pair_that_is_wrong_names_the_column(row: dict[str, Any], column: str, message: str) -> None:
    with pytest.raises(BadRow, match=message) as caught:
        schema_for(frozenset(row), "here:1", (Preference,)).convert(row)
    assert caught.value.column == column


def test_rated_answers_and_prompts() -> None:
    row = {"prompt": "q", "completion": "good", "label": "True"}
    made = schema_for(frozenset(row), "here:1", (Rated, Preference)).convert(row)
    assert made == Rated(prompt=Conversation(messages=tuple(ASKED)), completion=GOOD, good=True)
    asked = schema_for(frozenset({"prompt", "answer"}), "here:1", (Prompt,)).convert({"prompt": "q", "answer": "4"})
    assert asked == Prompt(prompt=Conversation(messages=tuple(ASKED)), answer="4")
    with pytest.raises(BadRow, match="expected true or false"):
        schema_for(frozenset(row), "here:1", (Rated,)).convert({**row, "label": "maybe"})


def test_the_objective_decides_where_columns_fit_several() -> None:
    columns = frozenset({"prompt", "messages"})
    assert schema_for(columns, "here:1", named("sft").accepts).name == "chat"
    assert schema_for(columns, "here:1", (Prompt,)).name == "prompts"


def test_answers_that_are_rated_bad_are_not_learned_as_good_ones() -> None:
    columns = frozenset({"prompt", "completion", "label"})
    assert schema_for(columns, "here:1", named("sft").accepts).name == "rated"


def prepared(folder: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: Any, rows: list[Any], **changes: Any) -> Any:
    monkeypatch.setattr(prepare, "load_tokenizer", lambda job: tokenizer)
    monkeypatch.setattr(prepare, "check_vocabulary", lambda job, highest: None)
    (folder / "data.json").write_text(json.dumps(rows))
    more = {"training__objective": "dpo", "training__preference": PREFERENCE, "dataset__path": "data.json", **changes}
    job = make_job(folder, **more)
    prepare.run(job)
    return prepare.load_prepared(job)


def test_the_answer_begins_where_the_template_lets_the_model_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: Any
) -> None:
    rows, held_out = prepared(tmp_path, monkeypatch, tokenizer, PAIRS[:1], dataset__validation_split=0.0)
    assert held_out is None and rows.num_rows == 1
    told = {
        name: tokenizer.decode(rows[0][name]).replace(" ", "") for name in ("prompt_ids", "chosen_ids", "rejected_ids")
    }
    assert told["prompt_ids"].endswith("assistant\n") and "good" not in told["prompt_ids"]
    assert told["chosen_ids"] == "good</s>" and told["rejected_ids"] == "poor</s>"
    assert rows[0]["length"] == len(rows[0]["prompt_ids"]) + 5


def test_supervised_fine_tuning_learns_the_better_answer_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    more = {"training__objective": "sft", "training__preference": None, "dataset__validation_split": 0.0}
    rows, _ = prepared(tmp_path, monkeypatch, tokenizer, PAIRS[:1], **more)
    assert tokenizer.decode([t for t in rows[0]["labels"] if t >= 0]).replace(" ", "") == "good</s>"
    assert "1 one-of-a-pair" in capsys.readouterr().out
    assert (
        "1 rows are pairs of answers, of which sft learns the chosen one"
        in (tmp_path / "out/data-check.csv").read_text()
    )
    prepared(tmp_path, monkeypatch, tokenizer, PAIRS[:1], dataset__validation_split=0.0)
    assert "one-of-a-pair" not in capsys.readouterr().out


def test_long_answers_are_cut_and_pairs_that_then_are_the_same_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = [
        {"prompt": "q", "chosen": "a" * 80, "rejected": "b" * 80},
        {"prompt": "q", "chosen": "c" * 80 + "x", "rejected": "c" * 80 + "y"},
    ]
    rows, _ = prepared(tmp_path, monkeypatch, tokenizer, pairs, dataset__validation_split=0.0)
    assert rows.num_rows == 1 and rows[0]["length"] == 64
    said = capsys.readouterr().out
    assert "2 rows read, 1 used" in said and "1 cut (100.0% of the rows used)" in said and "1 without answer" in said


def test_real_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: Any) -> None:
    real = real_pairs(30)
    rows, held_out = prepared(tmp_path, monkeypatch, tokenizer, real, dataset__max_seq_length=4096)
    assert rows.num_rows + held_out.num_rows == len(real) == 30 and held_out.num_rows == 3
    assert all(r["chosen_ids"] and r["rejected_ids"] and r["prompt_ids"] for r in rows)


@pytest.mark.parametrize(
    ("objective", "row", "message"),
    [
        ("dpo", {"question": "q", "answer": "a"}, "objective dpo needs a prompt with a chosen and a rejected answer"),
        (
            "sft",
            {"prompt": "q", "completions": ["a"], "labels": [True]},
            "is in the format stepwise: objective sft needs",
        ),
        ("pretrain", {"question": "q", "answer": "a"}, "objective pretrain needs plain text"),
    ],
)
def test_rows_that_do_not_suit_the_objective_say_what_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: Any, objective: str, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(RuntimeFailure, match=message) as caught:
        prepared(tmp_path, monkeypatch, tokenizer, [row], training__objective=objective)
    assert caught.value.exit_code == 13


def test_an_objective_that_is_not_there_is_named() -> None:
    with pytest.raises(RuntimeFailure, match="objective rlhf is not in this runtime"):
        named("rlhf")
