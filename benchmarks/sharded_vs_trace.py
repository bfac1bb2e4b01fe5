"""The closed form of memory against the trace where several ranks share the work: DDP, ZeRO's stages and FSDP2.

    python benchmarks/sharded_vs_trace.py [--only zero1,fsdp]
    python benchmarks/sharded_vs_trace.py --trace

The first form takes a second: it evaluates the closed form against kept traces, phase by phase. The second makes the
traces that are not kept yet (several seconds each). Errors are (closed form - trace) / trace, of the peak of allocated
bytes, and of each phase's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from axoc.cost.buckets import GATHER_ELEMENTS, LIVE_ELEMENTS, persistence_threshold_elements, reduce_bucket_elements
from axoc.cost.columns import STRATEGIES, Columns
from axoc.cost.memory import MemoryColumns, memory
from axoc.cost.scenario import Scenario
from axoc.facts.inventory import parse_inventory
from closed_form import columns_of, scenario_of
from closed_form_vs_trace import PHASES

KEPT: Final = Path(__file__).resolve().parent / "rows/sharded_trace.jsonl"
GIB: Final = 1 << 30
SHARDED: Final = ("fsdp", "zero1", "zero2", "zero3", "ddp")
CASES: Final[tuple[dict[str, Any], ...]] = (
    {"gc": True},
    {"gc": True, "liger": True, "ga": 2},
    {"dtype": "fp32", "gc": False},
    {"gc": True, "method": "lora"},
)
SETS: Final = (("llama-3.2-1b@6", 8), ("mistral-7b-v0.3@4", 8), ("llama-3.2-1b@6", 2))
"""Models and ranks. The first model ties its head to the embedding; the second does not, and its blocks outweigh both."""
TENSOR_CASES: Final[tuple[dict[str, Any], ...]] = (
    {"gc": True},
    {"gc": True, "ga": 2},
    {"dtype": "fp32", "gc": False},
    {"gc": False, "eval": True},
)
TENSOR_SETS: Final = tuple(
    (model, data, tensor)
    for model in ("llama-3.2-1b@6", "mistral-7b-v0.3@4", "qwen3-0.6b@5")
    for data, tensor in ((2, 2), (4, 4), (1, 2))
)
"""Models, shards and tensor-parallel ranks, under FSDP2 and without fused kernels, as planned."""
EVALUATED: Final[tuple[dict[str, Any], ...]] = (
    {"gc": True, "eval": True},
    {"gc": True, "eval": True, "liger": True, "seq": 512},
)
"""With a short sequence what is gathered outweighs what is computed."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, default=KEPT)
    parser.add_argument("--only", help="strategies, with commas between them")
    parser.add_argument("--trace", action="store_true", help="make the traces that are not kept yet")
    options = parser.parse_args()
    wanted = options.only.split(",") if options.only else SHARDED
    if options.trace:
        make(options.rows, wanted)
    rows = [row for row in read(options.rows) if row["strategy"] in wanted]
    for row in rows:
        print(shown(row))
    errors = [abs(peak_error(row)) for row in rows]
    print(f"{len(rows)} configurations: mean {statistics.mean(errors):.2%}, largest {max(errors):.2%}")
    return 0


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def configurations() -> Iterator[dict[str, Any]]:
    """A checkpoint that recomputes frozen weights fails under ZeRO-3, which has let go of them: its adapters go without."""
    for model, world in SETS:
        for strategy in SHARDED:
            for number, case in enumerate(CASES):
                base = {
                    "id": f"{model}/{strategy}/{world}/{number}",
                    "model": model,
                    "strategy": strategy,
                    "world": world,
                }
                row = base | {"method": "full", "dtype": "bf16", "mbs": 2, "seq": 2048} | case
                yield row | ({"gc": False} if strategy == "zero3" and row["method"] == "lora" else {})
    yield from evaluated()
    yield from tensor_parallel()


def evaluated() -> Iterator[dict[str, Any]]:
    for model, strategy in (("llama-3.2-1b@6", "fsdp"), ("mistral-7b-v0.3@4", "fsdp"), ("mistral-7b-v0.3@10", "zero3")):
        for number, case in enumerate(EVALUATED):
            base = {"id": f"{model}/{strategy}/8/evaluated/{number}", "model": model, "strategy": strategy, "world": 8}
            yield base | {"method": "full", "dtype": "bf16", "mbs": 1, "seq": 2048} | case


def tensor_parallel() -> Iterator[dict[str, Any]]:
    for model, data, tensor in TENSOR_SETS:
        for number, case in enumerate(TENSOR_CASES):
            base = {"id": f"{model}/fsdp/{data}x{tensor}/{number}", "model": model, "strategy": "fsdp"}
            ranks = {"world": data, "tensor": tensor}
            yield base | ranks | {"method": "full", "dtype": "bf16", "mbs": 2, "seq": 2048} | case


def make(path: Path, wanted: Any) -> None:
    known = {row["id"] for row in read(path)}
    for row in configurations():
        if row["strategy"] in wanted and row["id"] not in known:
            made = row | {"phases": traced(row)}
            with path.open("a") as file:
                file.write(json.dumps(made) + "\n")
            print(shown(made), flush=True)


def traced(row: dict[str, Any]) -> dict[str, int]:
    """Peak live bytes by phase."""
    from axoc_runtime.job import read_job
    from axoc_runtime.trace.extrapolate import trace
    from trace_accuracy import config_of, job_value

    config, ranks = config_of(row["model"]), row["world"] * tensor_of(row)
    value = job_value(row, config)
    value["distributed"] |= {
        "strategy": row["strategy"],
        "world_size": ranks,
        "data_parallel": row["world"],
        "tensor_parallel": tensor_of(row),
        "processes_per_node": ranks,
        "config": "strategy.json",
    }
    value["training"]["global_batch_size"] = row["mbs"] * row.get("ga", 1) * row["world"]
    with tempfile.TemporaryDirectory() as folder:
        settings = strategy_settings(row["strategy"], config["hidden_size"], value["model"]["decoder_block"])
        Path(folder, "strategy.json").write_text(json.dumps(settings))
        path = Path(folder, "job.json")
        path.write_text(json.dumps(value))
        found = trace(read_job(path), config)
    return {name: int(size) for name, size in found.phases.items()}


def tensor_of(row: dict[str, Any]) -> int:
    return int(row.get("tensor", 1))


def strategy_settings(strategy: str, hidden: int, block: str) -> dict[str, Any]:
    """What the compiler emits (emit/deepspeed.py, emit/fsdp.py), as far as memory depends on it."""
    if not strategy.startswith("zero"):
        return {"fsdp_version": 2, "reshard_after_forward": True, "transformer_layer_cls_to_wrap": [block]}
    zero: dict[str, Any] = {
        "stage": int(strategy.removeprefix("zero")),
        "reduce_bucket_size": reduce_bucket_elements(hidden),
        "overlap_comm": strategy == "zero3",
        "allgather_bucket_size": GATHER_ELEMENTS,
        "sub_group_size": LIVE_ELEMENTS,
        "stage3_prefetch_bucket_size": GATHER_ELEMENTS,
        "stage3_param_persistence_threshold": persistence_threshold_elements(hidden),
        "stage3_max_live_parameters": LIVE_ELEMENTS,
        "stage3_max_reuse_distance": LIVE_ELEMENTS,
    }
    return {"bf16": {"enabled": True}, "zero_optimization": zero}


def candidate(row: dict[str, Any]) -> tuple[Scenario, Columns]:
    one, ranks = scenario_of(row, "h100-sxm-80gb"), row["world"] * tensor_of(row)
    cluster = parse_inventory(f"h100-sxm-80gb:{ranks}", None, None)[0]
    scenario = replace(one, cluster=cluster, min_unit_parameters=1)  # a block to a unit, as traced
    columns = columns_of(row, scenario.model)
    strategy, world = np.array([STRATEGIES.index(row["strategy"])]), np.array([row["world"]])
    return scenario, replace(
        columns, strategy=strategy, data_parallel=world, tensor_parallel=np.array([tensor_of(row)])
    )


def predicted(row: dict[str, Any]) -> MemoryColumns:
    return memory(*candidate(row))


def peak_error(row: dict[str, Any]) -> float:
    return float(predicted(row).allocated[0]) / max(row["phases"].values()) - 1


def phase_errors(row: dict[str, Any]) -> dict[str, float]:
    found, theirs = predicted(row).phases, row["phases"]
    pairs = PHASES | {"load": (("load",), ("load",))}
    return {
        name: max(float(found[p][0]) for p in left) / max(theirs[p] for p in right if p in theirs) - 1
        for name, (left, right) in pairs.items()
        if any(p in theirs for p in right)
    }


def shown(row: dict[str, Any]) -> str:
    peak = max(row["phases"].values()) / GIB
    parts = " ".join(f"{name} {error:+.1%}" for name, error in phase_errors(row).items())
    return f"{row['id']:<28} {peak:6.2f} GiB {peak_error(row):+6.1%}   {parts}"


if __name__ == "__main__":
    sys.exit(main())
