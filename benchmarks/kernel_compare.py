"""Predicted device and host seconds of a step's phases beside those that kernel_times.py measured."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
from axoc.cost.activations import module_kind, programs
from axoc.cost.columns import Columns
from axoc.cost.launching import HostCosts
from axoc.cost.meter import ATTENTION, DEQUANTIZATION, PRODUCTS
from axoc.cost.scenario import Scenario
from axoc.cost.stretches import Passes, Stretch
from axoc.cost.time import _Line, optimizer_seconds, step_time
from closed_form import columns_of, read_rows, scenario_of

INVENTORY: Final = "h100-sxm-80gb"
GROUPS: Final = ("products", "attention", "quantization", "rest")
PARTS: Final = {PRODUCTS: "products", ATTENTION: "attention", DEQUANTIZATION: "quantization"}
CLASSES: Final = {"product": "products", "attention": "attention", "quantization": "quantization"}


def compare(path: Path, *, kernels: bool) -> int:
    for row in read_rows(path):
        print(f"\n## {row['id']}: {row['model']} {row['method']} {row['dtype']} {row['mbs']} x {row['seq']}")
        for line in lines(row, kernels=kernels):
            print(line)
    failed = [json.loads(line) for line in path.read_text().splitlines() if '"error"' in line]
    print("\n".join(f"failed: {row['id']}: {row['error']}" for row in failed))
    return 0


def lines(row: dict[str, Any], *, kernels: bool) -> Iterable[str]:
    scenario = scenario_of(row, INVENTORY)
    columns = columns_of(row, scenario.model)
    predicted, step = phases(scenario, columns), step_time(scenario, columns)
    whole = float(step.step_seconds[0])
    yield f"step {row['step_median_s'] * 1e3:.1f} ms measured, {whole * 1e3:.1f} predicted ({whole / row['step_median_s'] - 1:+.1%})"
    times, micro = int(row.get("ga", 1)), row.get("phases", {})
    for phase, found in predicted.items():
        measured = grouped(micro.get(phase, {}))
        told = [f"{g} {measured[g] * 1e3:.2f} | {found[g] * times * 1e3:.2f}" for g in GROUPS]
        yield f"  {phase:9} device ms, measured | predicted: " + ", ".join(told)
        yield f"            launches {micro.get(phase, {}).get('launches')} | {found['launches'] * times:.0f}; " + host(
            row, phase, found, times
        )
    optimizer = float(optimizer_seconds(scenario, columns)[0])
    busy = micro.get("optimizer", {}).get("busy_s", 0.0)
    yield f"  optimizer {busy * 1e3:.2f} | {optimizer * 1e3:.2f} ms"
    yield f"  by events, ms: { {k: round(v * 1e3, 2) for k, v in row['phases_device_s'].items()} }; gpu {row['gpu']}"
    if any(row["compilations"]):
        yield f"  compilations by step: {[c[:2] for c in row['compilations']]}"
    if kernels:
        for name, kind, seconds, count in row["top"]:
            yield f"    {seconds * 1e3:9.3f} ms {count:6} x {seconds / count * 1e6:8.1f} us {kind:12} {name[:110]}"


def host(row: dict[str, Any], phase: str, found: dict[str, float], times: int) -> str:
    """Of a micro-step over a short row, where the host alone takes time, and of all micro-steps as they ran."""
    short = row.get("short_s", {}).get(f"{phase}_min")
    shown = "" if short is None else f"short row {short * 1e3:.2f} (fastest), "
    alone = row.get("phases_launched_alone_s", {}).get(phase, 0.0)
    return f"host ms: {shown}predicted {found['host'] * 1e3:.2f} each; all {alone * 1e3:.2f} | {found['host'] * times * 1e3:.2f}"


def grouped(measured: dict[str, Any]) -> dict[str, float]:
    found = dict.fromkeys(GROUPS, 0.0)
    for kind, (seconds, _) in measured.get("classes", {}).items():
        found[CLASSES.get(kind, "rest")] += seconds
    return found


def phases(scenario: Scenario, c: Columns) -> dict[str, dict[str, float]]:
    """Of one micro-step; what is recomputed belongs to the backward."""
    kind = np.minimum(module_kind(c), 2)
    variant, alike = next((v, a) for v, a in programs(scenario, c, kind) if a.any())
    line = _Line(variant, c.rows(alike).of_one_variant(), {})
    found = {name: dict.fromkeys((*GROUPS, "host", "launches"), 0.0) for name in ("forward", "backward")}

    def add(phase: str, stretch: Stretch, times: float, costs: HostCosts, extra: float) -> None:
        into = found[phase]
        for part, seconds in stretch.device.items():
            into[PARTS.get(part, "rest")] += float(seconds[0]) * times
        into["host"] += (float(np.ravel(stretch.host(costs))[0]) + extra) * times
        into["launches"] += float(np.ravel(stretch.launches + stretch.triton)[0]) * times

    def ends(passes: Passes) -> None:
        add("forward", passes.forward, 1.0, line.outside, 0.0)
        add("backward", passes.backward, 1.0, line.outside, 0.0)

    ends(line.embedding)
    ends(line.tail)
    for (count, passes), again in zip(line.groups, line._checkpointed(), strict=True):
        recomputed, costs = float(again[0]), line.costs
        add("forward", passes.forward, count, costs, costs.each_pass)
        add("backward", passes.backward, count, costs, costs.each_pass)
        add("backward", passes.again, recomputed, costs, costs.each_pass)
        for phase, seconds in zip(("forward", "backward"), passes.hooks(costs), strict=True):
            found[phase]["host"] += recomputed * seconds
    return found
