"""For modules that plan much the same again and again: what is costed of equal arguments is costed once a session.

A module takes part by importing ``costed_once``, a folder by its conftest.py. One that changes the cost model does not.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import wraps
from typing import Any, Final

import pytest
from axoc.cost import exact
from axoc.search import margin, passes

MOST: Final = 100
"""Figures kept of each function: a pass over a large space is a megabyte."""


def remembered(function: Callable[..., Any]) -> Callable[..., Any]:
    """What it gives is handed out as copies: a pass is written to when a row of it is replayed."""
    known: OrderedDict[bytes, Any] = OrderedDict()

    @wraps(function)
    def found(*arguments: Any) -> Any:
        key = pickle.dumps(arguments)
        if key not in known:
            known[key] = function(*arguments)
        known.move_to_end(key)
        if len(known) > MOST:
            known.popitem(last=False)
        return deepcopy(known[key])

    return found


SHARED: Final = tuple(
    (module, name, remembered(getattr(module, name)))
    for module, name in ((passes, "cost"), (exact, "replay"), (margin, "settled_margins"))
)


@pytest.fixture(scope="module", autouse=True)
def costed_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module, name, function in SHARED:
            patch.setattr(module, name, function)
        yield


@pytest.fixture
def costed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was costed before."""
    for module, name, function in SHARED:
        monkeypatch.setattr(module, name, function.__wrapped__)  # type: ignore[attr-defined]
