"""What a strategy needs of its environment before anything is built."""

from __future__ import annotations

import os

import pytest
from axoc_runtime.strategies import leave_no_group


@pytest.mark.parametrize(
    ("visible", "local", "left"), [(None, "0", "0"), ("4,5", "0", "4"), ("GPU-7f", "0", "GPU-7f"), ("", "0", "0")]
)
def test_one_process_sees_one_device_and_joins_no_group(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, local: str, left: str
) -> None:
    monkeypatch.setenv("LOCAL_RANK", local)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    leave_no_group()
    assert "LOCAL_RANK" not in os.environ
    assert os.environ["CUDA_VISIBLE_DEVICES"] == left
