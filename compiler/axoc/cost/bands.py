"""Error bands stated with each estimate, from what was measured: facts/data/memory_errors.json.

``benchmarks/memory_accuracy.py --bands`` writes that file from the rows that judge the closed form, by kind of loss: with
plain logits the allocator's fragmentation is the larger unknown. A band is the largest error seen, not the mean.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

from axoc.cost.scenario import Scenario

TIME_DATASHEET: Final = 0.35
"""Of a step's time from datasheets alone. An allowance: no table of measured step times is published yet."""
CPU: Final = 0.5
"""No rows of CPU runs judge the closed form: half of the prediction either way."""


@dataclass(frozen=True, kw_only=True)
class MemoryBand:
    share: float
    """Of the prediction of driver-used bytes, either way."""
    rows: int
    """Measured rows it is of; 0 where none was."""
    measured: str
    """Date of the file, ISO; empty where no row was measured."""


def memory_band(scenario: Scenario) -> MemoryBand:
    if scenario.on_cpu:
        return MemoryBand(share=CPU, rows=0, measured="")
    found = _measured()
    kind = found["kinds"]["fused" if scenario.fused_loss else "plain"]
    return MemoryBand(share=kind["device_used"]["largest"], rows=kind["rows"], measured=found["made"])


def time_band(scenario: Scenario) -> float:
    """Share of the predicted step time, either way."""
    return CPU if scenario.on_cpu else TIME_DATASHEET


@cache
def _measured() -> dict[str, Any]:
    text = files("axoc.facts").joinpath("data", "memory_errors.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found
