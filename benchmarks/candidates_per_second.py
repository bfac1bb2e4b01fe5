"""How many candidates a second the cost model weighs: memory and time of random columns, as the search asks for them.

    python benchmarks/candidates_per_second.py [--rows 200000]

One process, no GPU. Each line is a scenario of the search (one model, one way to train); its candidates differ in strategy,
parallel degrees, micro-batch, accumulation, checkpointed blocks and offload. The best of three rounds counts.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from axoc.cost.columns import OFFLOADS, STRATEGIES, Columns
from axoc.cost.memory import memory
from axoc.cost.scenario import Scenario
from axoc.cost.time import step_time
from closed_form import scenario_of

ROUNDS: Final = 3
SHARDED: Final = [STRATEGIES.index(name) for name in ("ddp", "zero1", "zero2", "fsdp", "zero3")]
SCENARIOS: Final[dict[str, dict[str, Any]]] = {
    "llama-3-70b, full, bf16": {"model": "llama-3-70b", "method": "full", "dtype": "bf16"},
    "llama-3-8b, LoRA, Liger": {"model": "llama-3-8b", "method": "lora", "dtype": "bf16", "liger": True},
    "qwen3-8b, QLoRA": {"model": "qwen3-8b", "method": "qlora", "dtype": "nf4", "eval": True},
    "gemma-2-9b, full, fp32, eager": {"model": "gemma-2-9b", "method": "full", "dtype": "fp32", "attention": "eager"},
    "mixtral-8x7b, full, bf16": {"model": "mixtral-8x7b", "method": "full", "dtype": "bf16"},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    rows = parser.parse_args().rows
    for name, knobs in SCENARIOS.items():
        scenario = scenario_of({"seq": 4096, **knobs}, "h100-sxm-80gb:8x16")
        columns = random_columns(scenario, rows)
        alone = min(timed(memory, scenario, columns) for _ in range(ROUNDS))
        both = alone + min(timed(step_time, scenario, columns) for _ in range(ROUNDS))
        print(f"{name:<32}{rows / both:>12,.0f} candidates a second ({rows / alone:,.0f} through memory alone)")
    return 0


def timed(model: Callable[[Scenario, Columns], Any], scenario: Scenario, columns: Columns) -> float:
    """Seconds of one evaluation."""
    began = time.perf_counter()
    model(scenario, columns)
    return time.perf_counter() - began


def random_columns(scenario: Scenario, rows: int) -> Columns:
    draw = np.random.default_rng(0)
    return Columns(
        strategy=draw.choice(SHARDED, rows),
        data_parallel=draw.choice([16, 32, 64, 128], rows),
        tensor_parallel=draw.choice([1, 2, 4, 8], rows),
        replicate_degree=draw.choice([1, 2], rows),
        micro_batch=draw.integers(1, 33, rows),
        accumulation=draw.integers(1, 17, rows),
        checkpointed_layers=draw.integers(0, scenario.model.num_layers + 1, rows),
        offload=draw.integers(0, len(OFFLOADS), rows),
    )


if __name__ == "__main__":
    sys.exit(main())
