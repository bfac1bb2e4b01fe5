"""Error bands stated with each estimate, from what was measured: facts/data/memory_errors.json and time_errors.json.

``benchmarks/memory_accuracy.py --bands`` writes that file from the rows that judge the closed form, by kind of loss: with
plain logits the allocator's fragmentation is the larger unknown. A band is the largest error seen, not the mean.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

from axoc.cost.blocks import expert_names
from axoc.cost.kernels import profile_of
from axoc.cost.scenario import Scenario

WAITING: Final = 0.05
"""Share of a step that the device waits for the host, from which on the host's speed decides: machines with one kind of GPU differ by
1.8, and on a slow one a step waits that hardly does on the profile's."""
SEVERAL: Final = 0.35
"""Of a step's time on several accelerators: an allowance, within which 54 of 57 published rows (docs/scale.md) and all 20
measured ones (docs/several-gpus.md) are."""
UNMEASURED: Final = 0.15
"""Of the memory of an objective, of products in float8, or of images, none of it measured: an allowance, wider than any error seen on
rows of imitation that were looked at blind but one (docs/accuracy.md)."""
CPU: Final = 0.5
"""No rows of CPU runs judge the closed form: half of the prediction either way."""
GENERIC: Final = 0.5
"""Of an architecture without a family, which is planned as a Llama: nothing of it was measured."""


@dataclass(frozen=True, kw_only=True)
class MemoryBand:
    share: float
    """Of the prediction of driver-used bytes, either way."""
    rows: int
    """Measured rows it is of; 0 where none was."""
    measured: str
    """Date of the file, ISO; empty where no row was measured."""


def memory_band(scenario: Scenario, *, sharded: bool = False) -> MemoryBand:
    if scenario.model.family == "generic":
        return MemoryBand(share=GENERIC, rows=0, measured="")
    if scenario.on_cpu:
        return MemoryBand(share=CPU, rows=0, measured="")
    if _is_unmeasured(scenario):
        return MemoryBand(share=UNMEASURED, rows=0, measured="")
    found = _read("memory_errors.json")
    kind = found["kinds"]["sharded" if sharded else "fused" if scenario.fused_loss else "plain"]
    return MemoryBand(share=kind["device_used"]["largest"], rows=kind["rows"], measured=found["made"])


def time_band(scenario: Scenario, waits: float, ranks: int) -> float:
    """Share of the predicted step time, either way. ``waits``: of the step, for the host.

    ``benchmarks/time_accuracy.py --judge --bands`` writes facts/data/time_errors.json from the rows that judge.
    """
    kind, profile = kind_of(waits, ranks), profile_of(scenario)
    if profile is not None and kind in profile.bands:  # of runs on this very machine
        return profile.bands[kind]
    if scenario.model.family == "generic":
        return GENERIC
    if scenario.on_cpu:
        return CPU
    if kind == "several" or _is_unmeasured(scenario):
        return SEVERAL
    source = "datasheet" if profile is None or not profile.tables else "profile"
    of_errors = "experts" if adapts_experts(scenario) else kind
    found = _read("time_errors.json")["kinds"][f"{source}, {of_errors}"]
    return float(found["largest"])


def _is_unmeasured(scenario: Scenario) -> bool:
    sees = scenario.model.vision is not None
    return sees or scenario.objective.loss != "cross_entropy" or scenario.mixed_precision == "fp8"


def kind_of(waits: float, ranks: int) -> str:
    """``several`` ranks, or alone ``waiting`` for the host or ``busy``."""
    return "several" if ranks > 1 else "waiting" if waits > WAITING else "busy"


def adapts_experts(scenario: Scenario) -> bool:
    """What that costs is known least (docs/accuracy-time.md): its rows have a kind of their own."""
    adapter = scenario.adapter
    return adapter is not None and bool(expert_names(scenario.model, adapter.targets))


@cache
def _read(name: str) -> dict[str, Any]:
    text = files("axoc.facts").joinpath("data", name).read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found
