"""OpenAssistant's tables, a message a row: trees are put together, and no message is lost in silence."""

from __future__ import annotations

import json
import random
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from axoc_runtime.ingest.base import Conversation, Record
from axoc_runtime.ingest.gather import Gathered
from axoc_runtime.ingest.schemas import openassistant
from axoc_runtime.ingest.sources import records

from runtime import format_rows
from runtime.test_formats import DATASET, Here

TREES = [format_rows.messages_of_a_tree(*given, tree=f"t{n}") for n, given in enumerate(format_rows.GIVEN)]


def gathered(folder: Path, rows: list[dict[str, Any]]) -> tuple[Gathered, list[Record]]:
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = Gathered(records(Here(folder), DATASET), None, (Conversation,))  # type: ignore[arg-type]
    return found, list(found)


def test_trees_of_a_file_become_the_conversations_along_the_best_replies(tmp_path: Path) -> None:
    found, made = gathered(tmp_path, [*chain.from_iterable(TREES)])
    assert found.schema is not None and found.schema.name == "openassistant_messages"
    assert [(r.place, r.number) for r in made] == [(f"data.jsonl:{n}", n) for n in range(1, 4 * len(TREES), 4)]
    for record, (q, a, _) in zip(made, format_rows.GIVEN, strict=True):
        example = found.schema.convert(record.row)
        assert isinstance(example, Conversation)
        assert [(m["role"], m["content"]) for m in example.messages] == [("user", q), ("assistant", a)]


def test_the_order_inside_a_tree_does_not_matter(tmp_path: Path) -> None:
    rows = list(TREES[0])
    random.Random(1).shuffle(rows)
    found, (record,) = gathered(tmp_path, rows)
    assert found.schema is not None
    assert found.schema.convert(record.row) == found.schema.convert(TREES[0][0] | {"replies": TREES[0][1:3]})


BROKEN: list[tuple[str, Any, dict[int, str]]] = [
    ("a parent that is not there", lambda rows: rows[:1] + rows[2:], {}),
    ("its first message is gone", lambda rows: rows[1:], {0: "parent_id", 1: "parent_id", 2: "parent_id"}),
    ("a message twice", lambda rows: [*rows, rows[2]], {4: "message_id"}),
    ("no id", lambda rows: [*rows[:3], rows[3] | {"message_id": None}], {3: "message_id"}),
    ("an id that is a list", lambda rows: [*rows[:3], rows[3] | {"message_id": []}], {3: "message_id"}),
    ("a circle", lambda rows: [*rows, {**rows[1], "message_id": "x", "parent_id": "x"}], {4: "parent_id"}),
]


@pytest.mark.parametrize(("name", "damage", "bad"), BROKEN, ids=[b[0] for b in BROKEN])
def test_what_is_in_no_tree_is_told_with_its_place(tmp_path: Path, name: str, damage: Any, bad: dict[int, str]) -> None:
    """Every message is in a tree that comes out, or comes out with what is wrong."""
    rows = damage(list(TREES[0]))
    _, made = gathered(tmp_path, [*rows, *TREES[1]])
    told = {(r.number or 0) - 1: r.problem.column for r in made if r.problem is not None}
    assert told == bad and all(r.problem.fix and r.raw for r in made if r.problem is not None)

    def size(node: Any) -> int:
        return 1 + sum(size(reply) for reply in node["replies"])

    assert sum(size(r.row) for r in made if r.problem is None) + len(bad) == len(rows) + len(TREES[1])


def test_trees_whose_rows_are_mixed_are_refused_by_name(tmp_path: Path) -> None:
    mixed = [row for pair in zip(TREES[0], TREES[1], strict=True) for row in pair]
    _, made = gathered(tmp_path, mixed)
    assert sum(r.problem is not None for r in made) == len(mixed) - 2
    assert "sort the rows by message_tree_id" in str(made[2].problem and made[2].problem.fix)


def test_a_line_that_cannot_be_read_parts_no_tree(tmp_path: Path) -> None:
    lines = [json.dumps(row) for row in TREES[0]]
    (tmp_path / "data.jsonl").write_text("\n".join([*lines[:2], "{", *lines[2:]]))
    made = list(Gathered(records(Here(tmp_path), DATASET), None, (Conversation,)))  # type: ignore[arg-type]
    assert [r.problem is None for r in made] == [True, False]
    assert len(made[0].row["replies"]) == 2


def test_threads_are_cut_where_rows_would_be_nested_too_deeply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = [
        {"message_id": str(n), "parent_id": None if n == 0 else str(n - 1), "text": f"says {n}",
         "role": ("prompter", "assistant")[n % 2], "message_tree_id": "t"}
        for n in range(300)
    ]  # fmt: skip
    _, made = gathered(tmp_path, deep)
    assert [r.problem is None for r in made] == [True] + [False] * (300 - openassistant.DEEPEST)
    monkeypatch.setattr(openassistant, "LARGEST_TREE", 2)
    _, made = gathered(tmp_path, TREES[0])
    assert [r.problem is None for r in made] == [True, False, False]
