"""The kinds of rows, against looking at each pair of rows."""

from __future__ import annotations

import numpy as np
from axoc.cost.distinct import distinct
from hypothesis import given
from hypothesis import strategies as st


@given(st.lists(st.tuples(st.integers(-2, 3), st.booleans(), st.sampled_from([0.5, 1.5])), max_size=30))
def test_the_first_row_of_each_kind_and_each_rows_kind(rows: list[tuple[int, bool, float]]) -> None:
    columns = [np.array([row[i] for row in rows], dtype=kind) for i, kind in enumerate((np.int64, bool, float))]
    first, kinds = distinct(*columns)
    assert sorted(first) == [i for i, row in enumerate(rows) if row not in rows[:i]]
    assert [rows[first[kind]] for kind in kinds] == rows
