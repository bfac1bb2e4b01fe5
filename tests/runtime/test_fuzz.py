"""No bytes and no row bring a traceback. A short run of what benchmarks/fuzz.py does for minutes."""

from __future__ import annotations

import os
from typing import Any

import pytest
from axoc_runtime.ingest.base import Schema
from axoc_runtime.ingest.registry import formats
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime import format_rows, fuzzing

TIMES = int(os.environ.get("AXOC_FUZZ_TIMES", "1"))
"""benchmarks/fuzz.py asks for more of each."""
SHORT = settings(max_examples=25 * TIMES, deadline=None, suppress_health_check=list(HealthCheck))
SEEDS = fuzzing.seeds()
NAMES = sorted({c for f in formats().values() if isinstance(f, Schema) for c in (*f.columns, *f.optional)} - {""})
KEYS = st.sampled_from(["role", "content", "from", "value", "tool_calls", "function", "name", "arguments", "text",
                        "label", "type", "replies", "bytes", "url", "weight", "response", "id"])  # fmt: skip
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 2**70), st.floats(), st.text(max_size=8), st.binary(max_size=8),
    st.sampled_from(["user", "assistant", "gpt", "human", "tool", "function_call", "<image>", "\ud800", "{", "[]", '{"name": "f"}',
                     "\n\nHuman: a\n\nAssistant: b", "data:image/png;base64,x"]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)
ROWS = st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=4), VALUES, max_size=6)
TAUGHT = {name: row for name, (row, _) in format_rows.sft_rows(*format_rows.GIVEN[0]).items()}
TAUGHT |= format_rows.other_rows(*format_rows.GIVEN[0])


@SHORT
@given(row=ROWS)
def test_any_row_is_used_or_told(row: dict[str, Any]) -> None:
    fuzzing.examined(fuzzing.as_record(row))


@settings(SHORT, max_examples=150 * TIMES)
@given(name=st.sampled_from(sorted(TAUGHT)), data=st.data())
def test_a_row_with_one_thing_replaced_is_used_or_told(name: str, data: st.DataObject) -> None:
    row = TAUGHT[name]
    column = data.draw(st.sampled_from(sorted(row)))
    fuzzing.examined(fuzzing.as_record({**row, column: _replaced(row[column], data)}))


MESSAGES = st.fixed_dictionaries(
    {"message_id": st.sampled_from("abcd") | VALUES, "parent_id": st.sampled_from([None, *"abcd"]) | VALUES,
     "message_tree_id": st.sampled_from("tu") | VALUES, "role": st.sampled_from(["prompter", "assistant"]), "text": st.text()}
)  # fmt: skip


@settings(SHORT, max_examples=100 * TIMES)
@given(rows=st.lists(MESSAGES, max_size=8))
def test_any_table_of_messages_is_put_together_or_told(rows: list[dict[str, Any]]) -> None:
    fuzzing.together([fuzzing.as_record(row) for row in rows])


def _replaced(value: Any, data: st.DataObject) -> Any:
    """The value with one part of it, however deep, replaced."""
    if isinstance(value, dict) and value and data.draw(st.integers(0, 4)):
        key = data.draw(st.sampled_from(sorted(value)))
        return {**value, key: _replaced(value[key], data)}
    if isinstance(value, list) and value and data.draw(st.integers(0, 4)):
        at = data.draw(st.integers(0, len(value) - 1))
        return [*value[:at], _replaced(value[at], data), *value[at + 1 :]]
    return data.draw(VALUES)


@SHORT
@given(content=st.binary(max_size=200))
@pytest.mark.parametrize("ending", fuzzing.endings())
def test_any_bytes_are_rows_or_a_message(ending: str, content: bytes) -> None:
    fuzzing.one(ending, content)


@SHORT
@given(data=st.data())
@pytest.mark.parametrize("ending", sorted(SEEDS.keys() & set(fuzzing.endings())))
def test_a_damaged_file_is_rows_or_a_message(ending: str, data: st.DataObject) -> None:
    content = bytearray(SEEDS[ending])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        content[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    fuzzing.one(ending, bytes(content))
