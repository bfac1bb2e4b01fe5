"""Which format a dataset's rows are of, where the first ones do not say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from axoc_runtime.errors import RuntimeFailure
from axoc_runtime.ingest.base import BadRow, Conversation, Document, Record
from axoc_runtime.ingest.gather import STRANGE, Gathered

SOUND = {"question": "q", "answer": "a"}
STRANGER = {"questoin": "q", "answer": "a"}


def records(*rows: dict[str, Any] | None) -> Iterator[Record]:
    for number, row in enumerate(rows, start=1):
        problem = BadRow("no JSON") if row is None else None
        yield Record(place=f"a:{number}", row=row or {}, number=number, problem=problem)


def gathered(*rows: dict[str, Any] | None) -> tuple[str | None, list[int | None]]:
    found = Gathered(records(*rows), None, (Conversation,))
    numbers = [record.number for record in found]
    return found.schema and found.schema.name, numbers


@pytest.mark.parametrize("first", [(STRANGER,), (None, STRANGER, None, {}), (STRANGER,) * (STRANGE - 1)])
def test_the_first_row_that_fits_a_format_decides_and_none_is_lost(first: tuple[Any, ...]) -> None:
    assert gathered(*first, SOUND, STRANGER) == ("question_answer", list(range(1, len(first) + 3)))


@pytest.mark.parametrize("rows", [(STRANGER,), (None, STRANGER), (STRANGER,) * STRANGE + (SOUND,)])
def test_rows_of_no_format_say_so_by_the_first_of_them(rows: tuple[Any, ...]) -> None:
    place = 2 if rows[0] is None else 1
    with pytest.raises(RuntimeFailure, match=f"a:{place}: no known format has the columns answer, questoin"):
        gathered(*rows)


def test_a_row_of_several_formats_is_not_looked_beyond() -> None:
    with pytest.raises(RuntimeFailure, match="fit several formats"):
        list(Gathered(records({"messages": [], "text": "a"}, SOUND), None, (Conversation, Document)))


def test_rows_that_hold_nothing_are_given_as_they_are() -> None:
    assert gathered(None, {}, None) == (None, [1, 2, 3])


def test_what_is_held_does_not_grow_with_the_data() -> None:
    taken = []

    def endless() -> Iterator[Record]:
        yield from records(STRANGER)
        while True:
            taken.append(1)
            yield Record(place="a", row={}, problem=BadRow("no JSON"))

    with pytest.raises(RuntimeFailure, match="no known format"):
        list(Gathered(endless(), None, (Conversation,)))
    assert len(taken) < STRANGE
