"""Is the plan the best? The planner's choice for five jobs on one GPU beside a measured sweep of each.

    python benchmarks/plan_quality.py configs > sweep.configs.jsonl      # the plan, the frameworks' defaults, a grid
    python benchmarks/measure.py sweep.configs.jsonl sweep.jsonl          # on the GPU
    python benchmarks/plan_quality.py report sweep.jsonl [--markdown docs/plan-quality.md]

A job says what is trained, on rows of which lengths, and how many sequences a step; candidates split them into micro-batches,
recompute none, half or all of the blocks, pack rows or pad them, use Liger's kernels, the chunked loss or neither, and compile
blocks or not. What is compared is the data's tokens a second, padding left out. The sweep holds at least twelve candidates of
each job: the plan, the defaults of two frameworks, and of the rest those that are predicted to fit best, fastest first, with
every choice among them. One that runs out of memory counts as no speed at all. The plan is for a long run (PLANNED_STEPS), so
that compilation is judged by the step; what it takes is not measured.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import combinations, product
from pathlib import Path
from typing import Any, Final

from axoc.facts.inventory import parse_inventory
from axoc.facts.models import lookup_model
from axoc.ir.facts import DataFacts, RowLengths
from axoc.ir.plan import Plan
from axoc.search.choose import Facts, search
from axoc.spec.load import load_spec
from closed_form import Predicted, counted, model_of, predict

INVENTORY: Final = "h100-sxm-80gb"
FEWEST: Final = 14
"""Candidates of a job: twelve, the plan and a default."""
STEPS: Final = 6
PLANNED_STEPS: Final = 10_000
GOOD: Final = 0.97
"""Of the best's tokens a second."""
KEYS: Final = ("mbs", "ga", "gc", "kernels", "packing", "compile")


@dataclass(frozen=True, kw_only=True)
class Job:
    name: str
    model: str
    method: str
    seq: int
    total: int
    """Sequences a step."""
    lengths: str = "chat"
    """``full``: every row is as long as the longest."""

    @property
    def row(self) -> dict[str, Any]:
        dtype = "nf4" if self.method == "qlora" else "bf16"
        shape = {"model": self.model, "method": self.method, "dtype": dtype, "seq": self.seq, "steps": STEPS}
        return shape | {"lengths": self.lengths}


JOBS: Final = (
    Job(name="1B full", model="llama-3.2-1b", method="full", seq=2048, total=32),
    Job(name="1B long context", model="llama-3.2-1b", method="full", seq=16384, total=4, lengths="full"),
    Job(name="3B full", model="llama-3.2-3b", method="full", seq=2048, total=16),
    Job(name="8B LoRA", model="llama-3-8b", method="lora", seq=2048, total=16),
    Job(name="8B QLoRA", model="llama-3-8b", method="qlora", seq=2048, total=16, lengths="full"),
)
PLAIN: Final = {"kernels": "none", "packing": False, "compile": False}
DEFAULTS: Final = {
    "trainer default": {"mbs": 8, "gc": False} | PLAIN,  # transformers 5.17, TrainingArguments
    "trl default": {"mbs": 8, "gc": True} | PLAIN,  # trl 1.16, SFTConfig: gradient_checkpointing on
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("configs")
    report = commands.add_parser("report")
    report.add_argument("rows", type=Path)
    report.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    if options.command == "configs":
        for job in JOBS:
            for config in sweep(job):
                print(json.dumps(config))
        return 0
    text = reported(options.rows)
    print(text)
    if options.markdown:
        options.markdown.write_text(text + "\n", encoding="utf-8")
    return 0


# --- what is swept


def sweep(job: Job) -> list[dict[str, Any]]:
    """The plan and the defaults first, then the grid, fastest first; each choice of a setting stands in it."""
    chosen = planned(job) | {"what": "plan"}
    configs = [chosen, *(defaulted(job, name) for name in DEFAULTS)]
    for config in [*best_of_each(job), *fastest(job)]:
        if len(configs) >= FEWEST:
            break
        if not any(same(config, other) for other in configs):
            configs.append(config | {"what": "sweep"})
    return [{"id": f"{job.name.replace(' ', '-')}-{i:02d}", "job": job.name} | c for i, c in enumerate(configs)]


def planned(job: Job) -> dict[str, Any]:
    """What axoc chooses for the job, as a row of measure.py."""
    adapter = "" if job.method == "full" else "adapter: {type: lora, rank: 16}\n"
    quantization = ", quantization: {method: nf4}" if job.method == "qlora" else ""
    facts = model_of(job.row)
    spec = (
        f"model: {{id: {facts.id}{quantization}}}\n{adapter}dataset: {{path: rows.jsonl, max_seq_length: {job.seq}}}\n"
        f"training: {{global_batch_size: {job.total}, max_steps: {PLANNED_STEPS}}}\n"
    )
    request = load_spec(spec.encode(), "spec.yaml")
    model, _ = lookup_model(facts.id, None, None, "auto")
    clusters = parse_inventory(INVENTORY, None, None)
    lengths = counted(job.seq) if job.lengths == "chat" else full(job.seq)
    data = (DataFacts(path="rows.jsonl", lengths=lengths),)
    known = Facts(model=model, clusters=clusters, data=data, spec_digest="sha256:0")
    plan = search(request, known)
    assert isinstance(plan, Plan), f"{job.name} does not fit"
    c = plan.chosen.candidate
    recomputed = {"none": False, "full": True}.get(c.gradient_checkpointing, c.checkpointed_layers)
    return job.row | {
        "mbs": c.micro_batch_size,
        "ga": c.gradient_accumulation_steps,
        "gc": recomputed,
        "kernels": c.kernels,
        "packing": c.packing,
        "compile": c.compile,
    }


def full(longest: int) -> RowLengths:
    return RowLengths(tokens=(float(longest),), shares=(1.0,), source="full rows")


def defaulted(job: Job, name: str) -> dict[str, Any]:
    """A framework's own settings, with its micro-batch cut to the job's batch."""
    setting = DEFAULTS[name]
    micro = min(int(setting["mbs"]), job.total)
    return job.row | setting | {"mbs": micro, "ga": job.total // micro, "what": name}


def grid(job: Job) -> Iterator[dict[str, Any]]:
    """All that the planner may choose among: packing of full rows packs nothing, and is left out."""
    layers = model_of(job.row).num_layers
    micros = [n for n in (1, 2, 4, 8, 16, 32) if job.total % n == 0]
    kinds = product(
        micros,
        (False, layers // 2, True),
        ("none", "chunked", "liger"),
        (True, False) if job.lengths == "chat" else (False,),
        (False, True) if job.method != "qlora" else (False,),
    )
    for micro, recomputed, kernels, packed, compiled in kinds:
        split = {"mbs": micro, "ga": job.total // micro, "gc": recomputed}
        yield job.row | split | {"kernels": kernels, "packing": packed, "compile": compiled}


@cache
def fastest(job: Job) -> list[dict[str, Any]]:
    """The grid's candidates that are predicted to fit, the most tokens a second first."""
    costed = [(predict(config), config) for config in grid(job)]
    fitting = [(speed(found), i, config) for i, (found, config) in enumerate(costed) if fits(found)]
    return [config for _, _, config in sorted(fitting, key=lambda f: (-f[0], f[1]))]


def best_of_each(job: Job) -> Iterator[dict[str, Any]]:
    """The fastest with each value of each setting."""
    ordered = fastest(job)
    for key in ("mbs", "gc", "kernels", "packing", "compile"):
        values = {json.dumps(config[key]) for config in ordered}
        for value in sorted(values):
            yield next(config for config in ordered if json.dumps(config[key]) == value)


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(json.dumps(one[key]) == json.dumps(other[key]) for key in KEYS)


def fits(found: Predicted) -> bool:
    device = parse_inventory(INVENTORY, None, None)[0].accelerator.memory_bytes
    return found.bytes("device_used") <= device


def speed(found: Predicted) -> float:
    """The data's tokens a second."""
    return float(found.time.tokens_per_second[0])


# --- what came of it


def reported(path: Path) -> str:
    """A section a job, with the plan's share of the best, and Kendall's tau of predicted and measured speeds."""
    measured = [json.loads(line) for line in path.read_text().splitlines()]
    lines = ["# The plan beside a measured sweep", "", __doc__.split("\n\n")[-1].strip(), ""]
    summary = ["| job | candidates | ran | plan's tokens/s | best | share | above the defaults | Kendall tau |"]
    summary.append("|---|---:|---:|---:|---:|---:|---|---:|")
    details: list[str] = []
    for job in JOBS:
        rows = [row for row in measured if row["job"] == job.name]
        if rows:
            summary.append(summarized(job, rows))
            details += detailed(job, rows)
    return "\n".join([*lines, *summary, *details])


def summarized(job: Job, rows: list[dict[str, Any]]) -> str:
    speeds = [tokens_per_second(row) for row in rows]
    plan, best = speeds[0], max(speeds)
    assert rows[0]["what"] == "plan"
    defaults = [s for s, row in zip(speeds, rows, strict=True) if row["what"] in DEFAULTS]
    ran = [row for row in rows if "error" not in row]
    tau = kendall_tau([(speed(predict(row)), tokens_per_second(row)) for row in ran])
    above = "yes" if all(plan >= d for d in defaults) else "no"
    share = plan / best if best else 0.0
    cells = [job.name, len(rows), len(ran), f"{plan:,.0f}", f"{best:,.0f}", f"{share:.1%}", above, f"{tau:.2f}"]
    return "| " + " | ".join(map(str, cells)) + " |"


def detailed(job: Job, rows: list[dict[str, Any]]) -> list[str]:
    lines = ["", f"## {job.name}: {job.model}, {job.total} x {job.seq} tokens a step", ""]
    lines += [
        "| micro-batch | accumulation | recomputed | kernels | packed | compiled | | predicted | measured | of the best |"
    ]
    lines += ["|---:|---:|---|---|---|---|---|---:|---:|---:|"]
    best = max(tokens_per_second(row) for row in rows)
    for row in sorted(rows, key=lambda r: -tokens_per_second(r)):
        found = tokens_per_second(row)
        recomputed = {True: "all", False: "none"}.get(row["gc"], f"{row['gc']} blocks")
        shown = f"{found:,.0f}" if found else row["error"].split(":")[0]
        told = ["yes" if row[key] else "no" for key in ("packing", "compile")]
        cells = [row["mbs"], row["ga"], recomputed, row["kernels"], *told, row["what"]]
        cells += [f"{speed(predict(row)):,.0f}", shown, f"{found / best:.1%}" if found else ""]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def tokens_per_second(row: dict[str, Any]) -> float:
    return 0.0 if "error" in row else float(row["real_tokens_a_step"]) / float(row["step_median_s"])


def kendall_tau(pairs: list[tuple[float, float]]) -> float:
    """Concordant less discordant pairs, over all that are no ties."""
    signs = [(a - c) * (b - d) for (a, b), (c, d) in combinations(pairs, 2)]
    untied = [s for s in signs if s]
    return sum(1 if s > 0 else -1 for s in untied) / len(untied) if untied else 1.0


if __name__ == "__main__":
    sys.exit(main())
