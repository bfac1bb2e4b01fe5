"""Is the plan the best? The planner's choice for five jobs on one GPU beside a measured sweep of each.

    python benchmarks/plan_quality.py configs > sweep.configs.jsonl      # the plan, the frameworks' defaults, a grid
    python benchmarks/measure.py sweep.configs.jsonl sweep.jsonl          # on the GPU
    python benchmarks/plan_quality.py report sweep.jsonl [--markdown docs/plan-quality.md]

A job says what is trained, on rows of which lengths, and how many sequences a step; candidates split them into micro-batches,
recompute none, half or all of the blocks, pack rows or pad them, use Liger's kernels, the chunked loss or neither, and compile
blocks or not. What is compared is the data's tokens a second, padding left out. The sweep holds at least twelve candidates of
each job: the plan, the defaults of two frameworks, and of the rest those that are predicted to fit best, fastest first, with
every choice among them. One that runs out of memory counts as no speed at all. The plan is for a long run (PLANNED_STEPS), so
that compilation is judged by the step; what it takes is not measured. "Plan" is what was planned when the sweep was run. Since then
compilation counts as no machinery, attention of packed rows is flash attention 4's, which no sweep has, and Liger's loss is counted in
the chunks that it makes, which these sweeps led to; but for that attention, and for packing, which full rows take no notice of, today's
plans of all five jobs are their first rows.

Kendall's tau is of all pairs of candidates that ran. "Told apart" leaves out those whose timed steps overlap: the faster one's
slowest step took as long as the slower one's fastest, so that one run of each says nothing of their order. A candidate ran once;
the one configuration that ran twice on one card (a02 and j29 of accuracy-time.md) was 0.04% apart. Pairs that are predicted in the
other order stand below each table. Those of the 8B with one sequence a micro-step, and with two where it is quantized, are as slow
as on a host slower than the profile's. Those of 1B and 3B were measured up to 3% apart, within which a product between measured
sizes is not told. Compiled rows are 1% too fast beside eager ones with Liger's kernels, and the backward of packed documents in
torch's kernels, with the sums and strided copies around it, takes 1.4 times as long in a recorded step as the table's documents of
one length tell (rows/h100-kernel-times.jsonl.xz, packed-recomputed); why was not found.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
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
SETTLED: Final = 3
"""Steps before those that were timed, as measure.py has them."""
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


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One that ran, in tokens of the data a second."""

    row: dict[str, Any]
    predicted: float
    measured: float
    slowest: float
    """Of its timed steps."""
    fastest: float

    def told_apart(self, other: Candidate) -> bool:
        """Whether all timed steps of one are faster than all of the other."""
        return self.slowest > other.fastest or other.slowest > self.fastest


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
    lines = ["# The plan beside a measured sweep", "", __doc__.split("\n\n", 2)[-1].strip(), ""]
    summary = [
        "| job | candidates | ran | plan's tokens/s | best | share | above the defaults | Kendall tau | told apart | of pairs |"
    ]
    summary.append("|---|---:|---:|---:|---:|---:|---|---:|---:|---:|")
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
    pairs = list(combinations(candidates(rows), 2))
    apart = [pair for pair in pairs if pair[0].told_apart(pair[1])]
    above = "yes" if all(plan >= d for d in defaults) else "no"
    share = plan / best if best else 0.0
    cells = [job.name, len(rows), len(candidates(rows)), f"{plan:,.0f}", f"{best:,.0f}", f"{share:.1%}", above]
    cells += [f"{concordance(pairs):.2f}", f"{concordance(apart):.2f}", f"{len(apart)} of {len(pairs)}"]
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
    return lines + discordant(rows)


def candidates(rows: list[dict[str, Any]]) -> list[Candidate]:
    return [candidate(json.dumps(row)) for row in rows if "error" not in row]


@cache
def candidate(text: str) -> Candidate:
    row = json.loads(text)
    slowest, fastest = (row["real_tokens_a_step"] / of(row["step_s"][SETTLED:]) for of in (max, min))
    return Candidate(
        row=row, predicted=speed(predict(row)), measured=tokens_per_second(row), slowest=slowest, fastest=fastest
    )


def discordant(rows: list[dict[str, Any]]) -> list[str]:
    """Pairs that are predicted in the other order, the faster one first."""
    ran = sorted(candidates(rows), key=lambda c: -c.measured)
    wrong = [(one, other) for one, other in combinations(ran, 2) if order(one, other) < 0]
    if not wrong:
        return []
    lines = ["", "| faster | slower | measured | predicted | told apart |", "|---|---|---:|---:|---|"]
    for one, other in wrong:
        shown = [f"{one.measured / other.measured - 1:+.1%}", f"{one.predicted / other.predicted - 1:+.1%}"]
        shown.append("yes" if one.told_apart(other) else "no")
        lines.append(f"| {called(one.row)} | {called(other.row)} | " + " | ".join(shown) + " |")
    return lines


def called(row: dict[str, Any]) -> str:
    recomputed = {True: "all recomputed", False: ""}.get(row["gc"], f"{row['gc']} recomputed")
    said = [f"{row['mbs']} x {row['ga']}", recomputed, row["kernels"]]
    said += ["compiled" if row["compile"] else "", "padded" if row["lengths"] == "chat" and not row["packing"] else ""]
    return ", ".join(filter(None, said))


def tokens_per_second(row: dict[str, Any]) -> float:
    return 0.0 if "error" in row else float(row["real_tokens_a_step"]) / float(row["step_median_s"])


def order(one: Candidate, other: Candidate) -> float:
    """Above zero where both are predicted in the order that was measured, zero where either is a tie."""
    return (one.predicted - other.predicted) * (one.measured - other.measured)


def concordance(pairs: Iterable[tuple[Candidate, Candidate]]) -> float:
    """Kendall's tau: concordant less discordant pairs, over all that are no ties."""
    untied = [found for pair in pairs if (found := order(*pair))]
    return sum(1 if found > 0 else -1 for found in untied) / len(untied) if untied else 1.0


if __name__ == "__main__":
    sys.exit(main())
