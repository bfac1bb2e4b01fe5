"""Rows that differ in nothing that a computation depends on, so that it is made once for each kind of them."""

from __future__ import annotations

import numpy as np

from axoc.cost.columns import Bools, Floats, Ints


def distinct(*columns: Ints | Bools | Floats) -> tuple[Ints, Ints]:
    """(index of the first row of each kind, each row's kind).

    np.unique does as much for one column, but imports np.ma, which takes longer than a search.
    """
    order = np.lexsort(columns)  # stable: the first of equal rows comes first
    begins = np.zeros(len(order), dtype=np.bool_)
    begins[:1] = True
    for column in columns:
        in_order = column[order]
        begins[1:] |= in_order[1:] != in_order[:-1]
    kinds = np.empty(len(order), dtype=np.int64)
    kinds[order] = np.cumsum(begins) - 1
    return order[begins], kinds
