"""A test that claims a combination must have run it; what all claim can be collected."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from combinations import CURRENT, RAN, claimed
from hypothesis import HealthCheck, settings

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
"""How long an example takes says how busy the machine is."""


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


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--combinations", help="with --collect-only: write here what the tests claim, as JSON")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Test -> its claims, for tools/compatibility_doc.py. Parameters of a test are not told apart."""
    path = session.config.getoption("--combinations")
    if not path:
        return
    found: dict[str, set[tuple[str, ...]]] = {}
    for item in session.items:
        if item.get_closest_marker("xfail"):
            continue
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        for marker in item.iter_markers("combination"):
            found.setdefault(item.nodeid.partition("[")[0], set()).update(claimed(marker.kwargs, parameters))
    plain = {test: sorted(claims) for test, claims in sorted(found.items())}
    Path(path).write_text(json.dumps(plain), encoding="utf-8")
