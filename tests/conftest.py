"""A test that claims a combination must have run it."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
from combinations import CURRENT, RAN, claimed


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    CURRENT[0] = item.nodeid.partition("::")[0]


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    result = yield
    parameters = pyfuncitem.callspec.params if hasattr(pyfuncitem, "callspec") else {}
    for marker in pyfuncitem.iter_markers("combination"):
        missing = claimed(marker.kwargs, parameters) - RAN[CURRENT[0]]
        if missing:
            pytest.fail(f"the marker claims what did not run: {sorted(map(str, missing))}")
    return result
