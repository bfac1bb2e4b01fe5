"""For authors of plugins: a pytest plugin with fixtures, and tests that every dataset format has to pass.

    pytest_plugins = ["axoc_runtime.testing"]        # in conftest.py

Nothing of a run imports this.
"""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("axoc_runtime.testing.conformance")

from axoc_runtime.testing.conformance import ReaderConformance, SchemaConformance  # noqa: E402
from axoc_runtime.testing.fixtures import axoc_examined, axoc_tokenizer  # noqa: E402

__all__ = ["ReaderConformance", "SchemaConformance", "axoc_examined", "axoc_tokenizer"]
