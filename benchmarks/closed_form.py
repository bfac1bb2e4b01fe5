"""A measured row as the planner's closed form sees it: shared by the accuracy benchmarks."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from axoc.cost.columns import STRATEGIES, Columns
from axoc.cost.exact import settle
from axoc.cost.memory import MemoryColumns, memory
from axoc.cost.replay.conditions import Conditions
from axoc.cost.scenario import Scenario
from axoc.cost.sizes import sizes_of, trainable_parameters
from axoc.cost.time import TimeColumns, step_time
from axoc.facts.catalog import load_entry
from axoc.facts.inventory import parse_inventory
from axoc.facts.models import lookup_model
from axoc.ir.facts import ModelFacts, RowLengths
from axoc.ir.request import AdapterRequest
from chat_rows import COUNTED, chat_lengths
from measure import STEPS
from measured_loading import loading


@dataclass(frozen=True, kw_only=True)
class Predicted:
    memory: MemoryColumns
    time: TimeColumns

    def bytes(self, name: str) -> float:
        """``allocated`` | ``reserved`` | ``device_used``"""
        return float(getattr(self.memory, name)[0])

    @property
    def step_seconds(self) -> float:
        return float(self.time.step_seconds[0])


def read_rows(*paths: Path) -> list[dict[str, Any]]:
    """Rows that were measured; those that failed are left out."""
    rows = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    return [row for row in rows if "error" not in row]


def measured_bytes(row: dict[str, Any], name: str) -> float:
    """By measure.py's name. ``device_used`` was asked at the end, when the allocator of a device that had been full may have given
    back: there it is what was reserved at the peak, beside what a process has for itself."""
    if name != "device_used" or row[name] >= row["peak_reserved"]:
        return float(row[name])
    cluster, *_ = parse_inventory("h100-sxm-80gb", None, None)
    return float(row["peak_reserved"] + cluster.accelerator.context_bytes)


def predict(row: dict[str, Any], inventory: str = "h100-sxm-80gb", conditions: Conditions | None = None) -> Predicted:
    """``conditions``: those that the row ran under where none are given."""
    return _predict(json.dumps(row), inventory, conditions)


@cache
def _predict(text: str, inventory: str, conditions: Conditions | None) -> Predicted:
    """Once: a report's tables ask for the same rows again."""
    row = json.loads(text)
    scenario = scenario_of(row, inventory)
    columns = columns_of(row, scenario.model)
    found = memory(scenario, columns)
    settle(scenario, columns, found, 0, conditions or conditions_of(row, scenario))
    return Predicted(memory=found, time=step_time(scenario, columns))


def conditions_of(row: dict[str, Any], scenario: Scenario) -> Conditions:
    """Rows that were given were not measured by measure.py."""
    return measured_conditions(row, scenario, row["device_total"]) if "versions" in row else Conditions()


def measured_conditions(row: dict[str, Any], scenario: Scenario, device_bytes: float) -> Conditions:
    """As measure.py runs a row: on a device that is all its own, in as many steps, and quantized models loaded its way."""
    return Conditions(
        limit_bytes=device_bytes - scenario.cluster.accelerator.context_bytes,
        steps=row.get("steps", STEPS),
        loading=loading(scenario) if scenario.quantized else None,
    )


def model_of(row: dict[str, Any]) -> ModelFacts:
    """Facts of the row's model; ``@N`` keeps its first N layers."""
    name, _, layers = row["model"].partition("@")
    entry = load_entry(f"{name}.json")
    facts, _ = lookup_model(entry.id, None, None, "auto")
    if not layers:
        return facts
    share = facts.sliding_window_layers * int(layers) // facts.num_layers
    return replace(facts, num_layers=int(layers), sliding_window_layers=share)


def scenario_of(row: dict[str, Any], inventory: str) -> Scenario:
    model, adapter = model_of(row), adapter_of(row)
    return Scenario(
        model=model,
        sizes=sizes_of(model, adapter),
        cluster=parse_inventory(inventory, None, None)[0],
        seq_length=row["seq"],
        dtype="float32" if row["dtype"] == "fp32" else "bfloat16",
        mixed_precision="bf16",
        adapter=adapter,
        trainable=trainable_parameters(model, adapter),
        quantization="nf4" if row["dtype"] == "nf4" else "none",
        double_quantization=row.get("double_quant", True),
        casts_inputs=row.get("casts", True),
        scales_between=row.get("between", False),
        optimizer=row.get("optim", "adamw_torch_fused"),
        attention=row.get("attention") or ("varlen" if row.get("packing") else "sdpa"),
        kernels=row.get("kernels") or ("liger" if row.get("liger") else "none"),
        compile=row.get("compile", False),
        packing=row.get("packing", False),
        lengths=counted(row["seq"]) if row.get("lengths") == "chat" else None,
        evaluates=row.get("eval", False),
        steps=None,
    )


def counted(longest: int) -> RowLengths:
    """Chat-like rows, as a lock would tell the planner of them."""
    tokens, rows = np.unique(chat_lengths(COUNTED, longest), return_counts=True)
    shares = tuple(float(n) for n in rows / rows.sum())
    return RowLengths(tokens=tuple(map(float, tokens)), shares=shares, source="chat-like lengths")


def adapter_of(row: dict[str, Any]) -> AdapterRequest | None:
    if row["method"] == "full":
        return None
    targets = row.get("targets", "all-linear")
    return AdapterRequest(
        type="lora",
        rank=row.get("rank", 16),
        alpha=32.0,
        dropout=row.get("dropout", 0.0),
        targets=targets if isinstance(targets, str) else tuple(targets),
    )


def columns_of(row: dict[str, Any], model: ModelFacts) -> Columns:
    strategy = f"zero{row['zero']}" if row.get("zero") else "single"
    checkpointed = model.num_layers if row["gc"] is True else int(row["gc"])
    values = {
        "strategy": STRATEGIES.index(strategy),  # type: ignore[arg-type]
        "data_parallel": 1,
        "tensor_parallel": 1,
        "replicate_degree": 1,
        "micro_batch": row["mbs"],
        "accumulation": row.get("ga", 1),
        "checkpointed_layers": checkpointed,
        "offload": 0,
    }
    return Columns(**{name: np.array([value], dtype=np.int64) for name, value in values.items()})
