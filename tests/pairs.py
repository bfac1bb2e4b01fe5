"""Pairs for preference objectives: what a function of Python's own library does, against what another one does."""

from __future__ import annotations

import inspect
import shutil
import statistics
import textwrap
from types import ModuleType
from typing import Any

LIBRARY = (shutil, statistics, textwrap)


def pairs(count: int) -> list[dict[str, Any]]:
    """As ShareGPT-like rows: a question, the answer that is right, and the one of the next function."""
    told = [(f"{module.__name__}.{name}", answer) for module in LIBRARY for name, answer in _documented(module)]
    others = told[1:] + told[:1]
    rows = [
        {
            "conversations": [{"from": "human", "value": f"What does {name} do?"}],
            "chosen": {"from": "gpt", "value": answer},
            "rejected": {"from": "gpt", "value": other},
        }
        for (name, answer), (_, other) in zip(told, others, strict=True)
    ]
    assert len(rows) >= count
    return rows[:count]


def _documented(module: ModuleType) -> list[tuple[str, str]]:
    """Public functions and the first paragraph of what they say of themselves."""
    found = []
    for name in sorted(module.__all__):
        text = inspect.getdoc(getattr(module, name))
        if inspect.isfunction(getattr(module, name)) and text:
            found.append((name, " ".join(text.split("\n\n")[0].split())))
    return found
