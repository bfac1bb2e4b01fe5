"""Published throughput as the planner's closed form sees it: the very configuration of each row, and the planner's own.

rows/public-throughput.jsonl holds one row a published figure, rows/public-machines.json what its page says of the machine and
what it does not say and is assumed, rows/public-models.json shapes that the catalog lacks: llm-foundry's models are GPT-2's
architecture (learned positions, biases, tied head), as their published parameter counts confirm to the digit.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from axoc.cost.columns import STRATEGIES, Columns
from axoc.cost.scenario import Scenario
from axoc.cost.sizes import sizes_of
from axoc.cost.time import TimeColumns, step_time
from axoc.facts.catalog import load_entry
from axoc.facts.cluster import gbps_to_bytes
from axoc.facts.inventory import parse_inventory
from axoc.facts.models import lookup_model
from axoc.ir.facts import ClusterFacts, ModelFacts

HERE: Final = Path(__file__).resolve().parent / "rows"
SEEN: Final = (*(f"m{n}" for n in range(25, 49)), *(f"k{n:02}" for n in range(1, 7)))
"""Rows that were looked at while the model was made: llm-foundry's A100 40GB table and Kempner's first node."""


@dataclass(frozen=True)
class Predicted:
    row: dict[str, Any]
    time: TimeColumns

    @property
    def published(self) -> float:
        """Tokens a second of one GPU."""
        return float(self.row["tokens_per_second_per_gpu"])

    @property
    def tokens_per_second(self) -> float:
        """Of one GPU."""
        return float(self.time.tokens_per_second[0]) / int(self.row["gpus"])

    @property
    def error(self) -> float:
        return self.tokens_per_second / self.published - 1

    def share(self, part: str) -> float:
        """Of the predicted step."""
        return float(self.time.breakdown[part][0] / self.time.step_seconds[0])


def public_rows(*, seen: bool | None = None) -> list[dict[str, Any]]:
    """``seen``: those alone that were, or were not, looked at."""
    lines = (HERE / "public-throughput.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [r for r in rows if seen is None or (r["id"] in SEEN) == seen]


def predict(row: dict[str, Any]) -> Predicted:
    scenario = scenario_of(row)
    return Predicted(row, step_time(scenario, columns_of(row, scenario.model)))


def model_of(name: str) -> ModelFacts:
    own = json.loads((HERE / "public-models.json").read_text(encoding="utf-8"))
    if name in own:
        return lookup_model(name, own[name], name, "auto")[0]
    return lookup_model(load_entry(f"{name}.json").id, None, None, "auto")[0]


def cluster_of(row: dict[str, Any]) -> ClusterFacts:
    """The machine that the row's page tells of."""
    told = json.loads((HERE / "public-machines.json").read_text(encoding="utf-8"))[row["machine"]]
    per_node = min(told["per_node"], row["gpus"])
    [found] = parse_inventory(f"{told['accelerator']}:{per_node}x{row['gpus'] // per_node}", None, None)
    own = ("memory_bandwidth_bytes_per_second", "memory_bytes")
    accelerator = replace(found.accelerator, **{key: told[key] for key in own if key in told})
    if told.get("direct"):  # a job of some of a board's accelerators has the links among them alone
        rate = accelerator.link_bandwidth_bytes_per_second * max(1, per_node - 1) / (told["per_node"] - 1)
        accelerator = replace(accelerator, link_bandwidth_bytes_per_second=rate)
    elif accelerator != found.accelerator:  # no profile is of it
        accelerator = replace(accelerator, name=row["machine"])
    return replace(
        found,
        accelerator=accelerator,
        link_direct=told.get("direct", False),
        network_kind=told["network"]["kind"],
        network_bandwidth_bytes_per_second=gbps_to_bytes(told["network"]["gbps"]),
    )


def scenario_of(row: dict[str, Any]) -> Scenario:
    """float32 weights, sharded, gathered in bf16; rows are full."""
    model = model_of(row["model"])
    sizes = sizes_of(model, None)
    return Scenario(
        model=model,
        sizes=sizes,
        cluster=cluster_of(row),
        seq_length=row["seq"],
        dtype="float32",
        mixed_precision="bf16",
        adapter=None,
        trainable=sizes.total,
        quantization="none",
        double_quantization=False,
        optimizer="adamw_torch_fused",
        attention="sdpa",
        kernels="none",
        compile=row["compile"],
        packing=False,
        evaluates=False,
        steps=None,
    )


def columns_of(row: dict[str, Any], model: ModelFacts) -> Columns:
    data = row["gpus"] // row["tp"]
    per_node = json.loads((HERE / "public-machines.json").read_text(encoding="utf-8"))[row["machine"]]["per_node"]
    values = {
        "strategy": STRATEGIES.index("fsdp"),
        "data_parallel": data,
        "tensor_parallel": row["tp"],
        "replicate_degree": data // per_node if row["hybrid"] else 1,
        "micro_batch": row["mbs"],
        "accumulation": row["ga"],
        "checkpointed_layers": model.num_layers if row["gc"] is True else int(row["gc"]),
        "offload": 0,
    }
    return Columns(**{name: np.array([value], dtype=np.int64) for name, value in values.items()})
