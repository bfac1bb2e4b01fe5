"""Predicted throughput against published figures, and plans from 1 to 16,384 GPUs.

    python benchmarks/scale.py [--markdown docs/scale.md] [--picture docs/scale.svg]

Rows are of public_rows.py, each with its source; nothing is fitted to them. The planner's own choice for the same work stands
beside each judging row. Plans of the sweep are timed: processor seconds of the search alone.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from axoc.facts.inventory import parse_inventory
from axoc.ir.facts import ClusterFacts, DataFacts, ModelFacts
from axoc.ir.plan import Plan
from axoc.search.choose import Facts, search
from axoc.spec.load import load_spec
from axoc.units import GIB
from public_rows import Predicted, cluster_of, model_of, predict, public_rows
from scale_document import HEAD, Point, Published, machine_table, picture, source_table

COUNTS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
SWEPT: Final = ("llama-3-8b", "llama-3-70b")
SWEPT_TOKENS: Final = 8192
ENOUGH_HOST_BYTES: Final = 8192 * GIB
"""Pages do not say how much memory their hosts have."""
EARLY: Final = "llm-foundry-h100-80gb"
"""Measured in 2023, with the first kernels for Hopper."""
PIPELINED: Final = (
    Published(gpus=8192, tflops=430.0, layout="tensor 8, pipeline 16, data 64", batch=2048),
    Published(gpus=16384, tflops=400.0, layout="tensor 8, pipeline 16, data 128", batch=2048),
)
"""Llama 3.1 405B, rows of 8,192 (The Llama 3 Herd of Models, 2024, table 4)."""


@dataclass(frozen=True)
class Chosen:
    """The planner's own plan for a row's work."""

    tokens_per_second: float
    """Of one GPU."""
    layout: str
    seconds: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markdown", type=Path, help="write the document there as well")
    parser.add_argument("--picture", type=Path, help="write the picture there")
    options = parser.parse_args()
    judged, seen = ([predict(row) for row in public_rows(seen=s)] for s in (False, True))
    points = [point for name in SWEPT for point in sweep(name)]
    lines = [*rows_table("Rows that judge", judged, chosen=True), *rows_table("Rows that were looked at", seen)]
    lines += [*sweep_table(points), *pipelined_table()]
    print("\n".join(lines))
    if options.markdown:
        body = "\n".join([*machine_table(), *lines, "", *source_table()])
        options.markdown.write_text(f"{HEAD}{body}\n", encoding="utf-8")
    if options.picture:
        options.picture.write_text(picture(points, [*judged, *seen]), encoding="utf-8")
    return 0


# --- published rows


def rows_table(title: str, found: list[Predicted], *, chosen: bool = False) -> list[str]:
    own = " | planner's own | as" if chosen else ""
    lines = [
        f"## {title}: {len(found)} rows",
        "",
        f"| row | configuration | published tok/s/GPU | predicted | error{own} |",
        f"|---|---|--:|--:|--:{'|--:|---' if chosen else ''}|",
    ]
    for p in found:
        best = choose_for(p.row) if chosen else None
        told = "" if best is None else f" | {best.tokens_per_second:,.0f} | {best.layout}"
        lines.append(
            f"| {p.row['id']} | {configuration(p.row)} | {p.published:,.0f} | {p.tokens_per_second:,.0f} | {p.error:+.1%}{told} |"
        )
    return [*lines, "", *summary(found), ""]


def configuration(row: dict[str, Any]) -> str:
    parts = [row["machine"], row["model"], f"{row['gpus']} GPUs", f"{row['mbs']} x {row['seq']}"]
    parts += [f"accumulated {row['ga']}"] if row["ga"] > 1 else []
    parts += [f"tensor {row['tp']}"] if row["tp"] > 1 else []
    parts.append("hybrid shard" if row["hybrid"] else "FSDP" if row["gpus"] > row["tp"] else "no shards")
    parts.append("recomputed" if row["gc"] is True else f"{row['gc']} layers recomputed" if row["gc"] else "kept")
    return ", ".join(parts + (["compiled"] if row["compile"] else []))


def summary(found: list[Predicted]) -> list[str]:
    groups = {"all": found, "all but those of 2023's H100": [p for p in found if p.row["machine"] != EARLY]}
    groups |= {m: [p for p in found if p.row["machine"] == m] for m in dict.fromkeys(p.row["machine"] for p in found)}
    lines = ["| rows | how many | mean of absolute errors | mean of errors | largest |", "|---|--:|--:|--:|--:|"]
    for name, some in groups.items():
        errors = [p.error for p in some]
        worst = max(errors, key=abs)
        size = statistics.mean(map(abs, errors))
        lines.append(f"| {name} | {len(some)} | {size:.1%} | {statistics.mean(errors):+.1%} | {worst:+.1%} |")
    return lines


# --- plans


def choose_for(row: dict[str, Any]) -> Chosen | None:
    batch = row["mbs"] * row["ga"] * row["gpus"] // row["tp"]
    cluster = replace(cluster_of(row), host_memory_bytes=ENOUGH_HOST_BYTES)
    return chosen_plan(model_of(row["model"]), cluster, row["seq"], batch, "float32")


def chosen_plan(model: ModelFacts, cluster: ClusterFacts, tokens: int, batch: int | str, dtype: str) -> Chosen | None:
    spec = (
        f"model: {{id: meta-llama/Meta-Llama-3-8B, dtype: {dtype}}}\n"
        f"dataset: {{path: data.jsonl, max_seq_length: {tokens}}}\n"
        f"training: {{objective: pretrain, max_steps: 1000, global_batch_size: {batch}}}\n"
        "distributed: {model_parallel_size: auto}\n"
    )
    request = load_spec(spec.encode(), "spec.yaml")
    facts = Facts(model=model, clusters=(cluster,), data=(DataFacts(path="data.jsonl"),), spec_digest="sha256:0")
    began = time.process_time()
    found = search(request, facts)
    seconds = time.process_time() - began
    if not isinstance(found, Plan):
        return None
    return Chosen(found.chosen.estimate.time.tokens_per_second / cluster.world_size, _layout(found), seconds)


def _layout(plan: Plan) -> str:
    c = plan.chosen.candidate
    parts = [c.strategy, *([f"{c.replicate_degree} copies"] if c.replicate_degree > 1 else [])]
    parts += [f"tensor {c.tensor_parallel}"] if c.tensor_parallel > 1 else []
    parts += [
        f"{c.micro_batch_size} x {c.gradient_accumulation_steps}",
        f"{c.checkpointed_layers} recomputed",
        c.kernels,
    ]
    return ", ".join(parts + (["compiled"] if c.compile else []))


def sweep(name: str) -> list[Point]:
    found = []
    for count in COUNTS:
        per_node = min(8, count)
        [cluster] = parse_inventory(f"h100-sxm-80gb:{per_node}x{count // per_node}", None, None)
        own = chosen_plan(model_of(name), cluster, SWEPT_TOKENS, "auto", "bfloat16")
        if own is not None:
            found.append(Point(name, count, own.tokens_per_second, own.layout, own.seconds))
    return found


def sweep_table(points: list[Point]) -> list[str]:
    lines = [
        "## Plans from 1 to 16,384 GPUs",
        "",
        f"H100, eight to a node, EFA at 3,200 Gbit/s; bf16 weights, rows of {SWEPT_TOKENS:,}, batch left open.",
        "",
        "| model | GPUs | tok/s/GPU | plan | processor seconds of planning |",
        "|---|--:|--:|---|--:|",
    ]
    return (
        lines
        + [f"| {p.model} | {p.gpus:,} | {p.tokens_per_second:,.0f} | {p.layout} | {p.seconds:.2f} |" for p in points]
        + [""]
    )


def pipelined_table() -> list[str]:
    lines = [
        "## What axoc cannot run",
        "",
        "Llama 3.1 405B as published, with pipelines and 2,048 rows of 8,192 a step, beside what axoc would do instead, which",
        "is a row on each GPU (RoCE at 3,200 Gbit/s a node, bf16 weights). Not counted: it is not the same configuration.",
        "",
        "| GPUs | published | TFLOP/s/GPU | axoc's plan | predicted TFLOP/s/GPU |",
        "|--:|---|--:|---|--:|",
    ]
    model = model_of("llama-3.1-405b")
    for row in PIPELINED:
        [cluster] = parse_inventory(f"h100-sxm-80gb:8x{row.gpus // 8}", None, None)
        cluster = replace(cluster, network_kind="roce", host_memory_bytes=ENOUGH_HOST_BYTES)
        own = chosen_plan(model, cluster, SWEPT_TOKENS, "auto", "bfloat16")
        told = (
            "none fits | "
            if own is None
            else f"{own.layout} | {own.tokens_per_second * flops_a_token(model) / 1e12:,.0f}"
        )
        lines.append(f"| {row.gpus:,} | {row.layout} | {row.tflops:,.0f} | {told} |")
    return lines


def flops_a_token(model: ModelFacts) -> float:
    """Of a full training step, causal attention counted by half, without recomputation."""
    matrices = model.num_layers * (
        2 * model.hidden_size * model.num_heads * model.head_dim
        + 2 * model.hidden_size * model.num_kv_heads * model.head_dim
        + 3 * model.hidden_size * model.intermediate_size
    )
    attention = 6.0 * model.num_layers * model.num_heads * model.head_dim * SWEPT_TOKENS
    return 6.0 * (matrices + model.hidden_size * model.vocab_size) + attention


if __name__ == "__main__":
    raise SystemExit(main())
