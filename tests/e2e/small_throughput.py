"""benchmarks/throughput.py, its rows and weights of a CPU's size, in float32: run by test_same_work.py in a process of its own,
as what the benchmark puts in the place of the runtime's parts stays there.

    PYTHONPATH=tests:benchmarks python tests/e2e/small_throughput.py FOLDER OUT.jsonl
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import throughput
from runtime.jobs import LORA, write_job

STEPS = 10
LONGEST = 64
RATE = 2e-3
JOB: dict[str, Any] = {"model": None, "learning_rate": RATE, "tuned": {"micro": 1, "gc": False}, "packs": 2}


def main(folder: Path, rows: Path) -> int:
    """Appends a row for each method and side."""
    import trl.trainer.sft_trainer  # noqa: F401, once for all sides, which are forked

    parts, runs = throughput.parts, []
    for method in ("lora", "full"):
        parts.JOBS[method] = JOB | {"method": method}
        write_bundle(folder, method)
        runs += [f"{method}:axoc", f"{method}:tuned"]
    parts.LONGEST, parts.EVERY, parts.lengths, throughput.ENOUGH_STEPS = LONGEST, 1, short_rows, STEPS
    model = parts.make_model
    parts.make_model = lambda job, **more: model(job, **more | {"dtype": "float32"})
    options = {"folder": folder, "rows": rows, "runs": ",".join(runs), "seconds": 1e9, "budget": 1e9, "device": "cpu"}
    return throughput.sequence(argparse.Namespace(**options))


def short_rows(rows: int = 300) -> Any:
    return np.clip(np.random.default_rng(0).lognormal(np.log(20), 0.8, rows), 4, LONGEST).astype(int)


def write_bundle(folder: Path, method: str) -> None:
    """The job that a plan makes of the benchmark's spec, but in float32."""
    bundle = folder / method / "bundle"
    bundle.mkdir(parents=True)
    alone = {"strategy": "single", "world_size": 1, "processes_per_node": 1, "data_parallel": 1}
    write_job(
        bundle, base_dir="..", **{f"distributed__{k}": v for k, v in alone.items()},
        model__attention="varlen", model__kernels="chunked", dataset__packing=True, dataset__max_seq_length=LONGEST,
        dataset__validation_split=0.0, adapter=None if method == "full" else LORA | throughput.LORA,
        training__objective="pretrain", training__max_steps=STEPS, training__global_batch_size=2, training__micro_batch_size=2,
        training__gradient_accumulation_steps=1, training__learning_rate=RATE, training__save_steps=10 * STEPS,
        expect__trainable_parameters=trainable(method),
    )  # fmt: skip


def trainable(method: str) -> int:
    config = throughput.parts.TINY
    wide, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    pairs = [(wide, wide)] * 2 + [(wide, keys)] * 2 + [(wide, inner)] * 3
    if method == "lora":
        return int(layers * throughput.LORA["rank"] * sum(a + b for a, b in pairs))
    return int(layers * (sum(a * b for a, b in pairs) + 2 * wide) + wide + config["vocab_size"] * wide)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
