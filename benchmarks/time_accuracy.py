"""Step time predicted and measured, row by row: from the shipped profile, and from the datasheet alone.

    python benchmarks/time_accuracy.py [--judge] [--markdown docs/accuracy-time.md] [--bands compiler/axoc/facts/data/time_errors.json]

``built`` and ``seen`` rows were looked at while the time model was made. The others were not; they are read only with --judge.
``borderline`` and ``limit`` rows ran four steps, so that what stands for their step is one step.
"""

from __future__ import annotations

import argparse
import json
import lzma
import statistics
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any, Final

from axoc.cost.bands import WAITING, adapts_experts
from axoc.cost.scenario import Scenario
from axoc.cost.time import TimeColumns, step_time
from axoc.cost.traced import traced_time
from closed_form import columns_of, model_of, read_rows, scenario_of
from memory_accuracy import knobs
from traced_time import recorded

HERE: Final = Path(__file__).resolve().parent
BUILT: Final = {
    "built": HERE.parent / "tests/cost/measured_h100.jsonl",
    "seen": HERE / "rows/h100-seen.jsonl",
}
JUDGING: Final = {
    "judge": HERE / "rows/h100-judge.jsonl",
    "borderline": HERE / "rows/h100-borderline.jsonl",
    "fresh": HERE / "rows/h100-fresh.jsonl",
    "blind": HERE / "rows/h100-blind.jsonl",
    "limit": HERE / "rows/h100-limit.jsonl",
}
OTHER_HOST: Final = HERE / "rows/h100-kernel-times.jsonl.xz"
"""Of a host 1.3 times as slow as the profile's. They built the model and judge nothing, but tell how far off another host is."""
JOB: Final = ("model", "method", "dtype", "seq", "rank", "targets")
"""What a row trains; all else is how."""
FEWEST_CANDIDATES: Final = 3
INVENTORY: Final = "h100-sxm-80gb"
UNPROFILED: Final = "an H100 that no profile is of"


@dataclass(frozen=True)
class Predicted:
    row: dict[str, Any]
    profiled: TimeColumns
    datasheet: TimeColumns
    traced: TimeColumns | None = None
    """With the profile, of what the trace launches; None where the row was not traced."""

    @property
    def measured(self) -> float:
        return float(self.row["step_median_s"])

    def error(self, *, profiled: bool = True) -> float:
        found = self.profiled if profiled else self.datasheet
        return float(found.step_seconds[0]) / self.measured - 1

    def traced_error(self) -> float | None:
        return None if self.traced is None else float(self.traced.step_seconds[0]) / self.measured - 1

    def waits(self, source: str = "profile") -> float:
        """Share of the step in which the device waits for the host."""
        found = self.profiled if source == "profile" else self.datasheet
        return float(found.waits[0])

    def kind(self, source: str) -> str:
        if adapts_experts(scenario_of(self.row, INVENTORY)):
            return "experts"
        return "waiting" if self.waits(source) > WAITING else "busy"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judge", action="store_true", help="read the rows that judge, too")
    parser.add_argument("--markdown", type=Path, help="write the tables there as well")
    parser.add_argument("--bands", type=Path, help="write the judging rows' errors there: the planner's error bands")
    options = parser.parse_args()
    sets = BUILT | (JUDGING if options.judge or options.bands else {})
    found = {name: [predict(row) for row in timed(path)] for name, path in sets.items()}
    lines = [line for name, rows in found.items() for line in table(name, rows)]
    print("\n".join(lines))
    if options.markdown:
        options.markdown.write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")
    if options.bands:
        options.bands.write_text(
            json.dumps(bands([row for name in JUDGING for row in found[name]] + other_host()), indent=1) + "\n", "utf-8"
        )
    return 0


def timed(path: Path) -> list[dict[str, Any]]:
    return [row for row in read_rows(path) if row.get("step_median_s")]


def other_host() -> list[Predicted]:
    """Eager steps of rows that are all alike: a compiled one's host seconds were taken from there."""
    with lzma.open(OTHER_HOST, "rt") as file:
        rows = [json.loads(line) for line in file]
    return [predict(row) for row in rows if row.get("step_median_s") and not row.get("lengths")]


def predict(row: dict[str, Any]) -> Predicted:
    scenario = scenario_of(row, INVENTORY)
    columns = columns_of(row, scenario.model)
    runs = launches().get(row["id"], {}).get("runs")
    traced = traced_time(scenario, columns, runs) if runs else None
    return Predicted(row, step_time(scenario, columns), step_time(without_profile(scenario), columns), traced)


@cache
def launches() -> dict[str, Any]:
    return recorded()


def without_profile(scenario: Scenario) -> Scenario:
    cluster = scenario.cluster
    return replace(scenario, cluster=replace(cluster, accelerator=replace(cluster.accelerator, name=UNPROFILED)))


def bands(rows: list[Predicted]) -> dict[str, Any]:
    """What cost/bands.py reads: by source, and by whether the device waits for the host or experts have adapters."""
    kinds = {}
    for source in ("profile", "datasheet"):
        for word in ("busy", "waiting", "experts"):
            chosen = [r for r in rows if r.kind(source) == word]
            found = errors(r.error(profiled=source == "profile") for r in chosen)
            kinds[f"{source}, {word}"] = {"rows": len(chosen), **found}
    return {
        "version": 1,
        "made": datetime.now(UTC).date().isoformat(),
        "by": "python benchmarks/time_accuracy.py --bands; errors are of (predicted - measured) / measured, without sign",
        "kinds": kinds,
    }


def errors(values: Iterable[float]) -> dict[str, float]:
    """Without sign; 4 digits, so that another machine's last bits change nothing."""
    sizes = [abs(v) for v in values]
    return {"mean": round(statistics.mean(sizes), 4), "largest": round(max(sizes), 4)}


HEAD: Final = """# Accuracy of the predicted step time

Made by `python benchmarks/time_accuracy.py --judge --markdown docs/accuracy-time.md`, from rows measured as
[accuracy.md](accuracy.md) tells: the optimizer step of the plain Trainer on one H100, without data loading. Errors are
(predicted - measured) / measured, with the profile that ships for that accelerator and with its datasheet alone. "waits" is the
share of the step in which, as predicted, the device waits for the host; there the host's own speed decides. "datasheet" takes
from the H100's profile what no datasheet says: an operation's host seconds, and those of 8-bit AdamW and Adafactor. "trace" is with
the profile, too, but of what the real modelling code launches ([trace.md](trace.md), `benchmarks/traced_time.py`); it was made when all
rows had been read, and nothing in it was fitted to one. "Busy" rows are expected to wait for at most 5%.

**What is blind here.** The model was made beside the rows "built" and "seen". "judge" and "borderline" were then read once, and
gave, with the profile: judge 14.9% on average and 69.3% at worst, borderline 2.4% and 7.3%, all 29 together 9.3%; with the
datasheet 17.7% and 71.6%, 7.3% and 15.2%. The two worst were Falcon's (-69%, -61%; 7.7% on average without them): it hands
torch one key head for all queries, which only torch's plain attention takes. That was read from the sources and entered, and so
was a miscount of what the calibration's quantized models launch (k07, k16: -20%, -24%), and that GPT-NeoX turns a quarter of a head
(m11: +7%). Nothing was fitted to a row. The tables below are of the model as it is now: for those five rows they are no longer
blind.

**What it lacks.** Where the device is kept busy, errors are a few percent; where it waits for the host they are the host's:
three machines with one kind of GPU and of processor differ by 1.8 (0.72, 1.07 and 1.30 of their mean, table `host_launches`), and one of
them by as much from one step to the next (523 to 829 ms of the same step; one forward of adapters over a row whose kernels take nothing,
62 ms at its fastest and 96 in the median). The profile's host is the mean one. Rows of one kind are
therefore off to both sides (-22% to +23%), and no term can tell them apart; `axoc calibrate --from` does, for a machine of
one's own. The band of steps that wait for more than 5% takes in what the slowest of the three machines was off by. Experts
with adapters (-3, -12 and -24%), experts (-16 to +4%), ZeRO (DeepSpeed's own Python; that of ZeRO-3 is now counted, from rows of two
accelerators and one of this page's kind) and GPT-NeoX (-2 to -7%) are known to be short.
Products of steps that do not draw the power limit are taken 10% too slow, and what lies between kernels, 1.3 microseconds
each, too short by as much. Rows of two accelerators stand in [several-gpus.md](several-gpus.md).

**The last look**, 20 blind rows on another H100 and host: profile 11.4% on average and 62.7% at worst (n15, experts with LoRA: the
same lack as before), datasheet 13.5% and 66.3%; where the device is predicted to wait for the host
for at most 1% of the step, 9 rows, 5.0%.

After that look came what adapters of experts cost: PEFT makes each adapted weight anew in every forward, twice (torch calls what
is registered as a parametrization once to check it), and the gradients of the two factors read that of the whole. A trace of
the operations shows it, and its bytes are counted. n15 (-62.7%) and k20 (-36.2%) led to it, so that they judge no more; they
were at -25% and -17%. The batched products, sixteen columns wide, take no longer than their bytes do (recorded as pieces); what
was missing is the host's: torch makes a class for each adapted parameter in each forward, and the factors are cast, copied and
scaled by kernels of their own, and so are those of the router. They are at -24% and -3%. Of n15's six steps, 67 to 87 ms, the
fastest is 11% above what is predicted.

**Beside the trace**, operation by operation, came what both do: Gemma's norms' small kernels, masks of fused attention, experts' weighted
sums. It made rows worse that were too slow already (k04, k06, of a fast host) and others better (k05, k07); no row decided.

**Kernel by kernel.** Eleven configurations, none of them a row of this page, were then recorded on one H100 by `benchmarks/kernel_times.py`
(`rows/h100-kernel-times.jsonl.xz`): kernels by phase and class, and the host's seconds. Kernels were within 3% of what is counted but for
experts; the host's were not. From there come the Trainer's walks through all modules, which an adapter multiplies (up to 50 ms a step,
the device idle), a checkpoint's hooks by the tensors that it saves, what a compiled block takes before it runs, kernels on parts of
a fused product, experts' rows that are filled, and the backward of Liger's norms, of which the profile has a table. Errors had
been, in the order of the tables below, 6.7, 6.2, 9.5, 2.0, 4.6 and 9.7%. Nothing was fitted to a row, but rows pointed to three
terms, and so judge no more: k25 (with j27) to products over GPT-2's odd number of words, which had been told by their neighbours'
(-16%); the sweeps' large batches ([plan-quality.md](plan-quality.md)) to long products, which were slowed twice, and to attention
by heads of its own size; and that n19, a compiled row, was 16% too slow is why the compiled blocks' host seconds are the mean of
both measurements of them, which differ by 1.7, rather than the larger.

**Liger's loss** then was counted anew, as the sweeps' micro-batches of 65,536 tokens, 4% too fast, led to: between measured sizes it had
been told by a count of chunks that Liger rounds (32 of a vocabulary 63 times as wide as the stream), and by arithmetic and bytes one after
the other, so that large ones took less than an H100 can. Beside it stand the compiled chunked loss (four passes over the logits, not
three; n18, n19 and p12 have it) and long products, told by short ones at the clock that those run on at. Rows of Liger moved by up to 10%
(n03 -16.5 to -6.1%, j05 +8.1 to -3.9%, j34 -0.5 to +3.1%); those of the judging sets that are busy stayed at 2.2%. Of the judging
rows six are more than 10% off: four of them wait for the host (k04, k07, k16 and k27, to both sides), and n15 and p11 have experts with
adapters.

**Near the memory's limit**, 16 rows on one more H100, looked at once and with nothing changed for them: profile 3.6% on average and 12.0%
at worst, datasheet 7.2% and 19.7%. All keep the device busy. The worst is p11, a Mixtral with adapters on its experts (-12.0%); the
others are off by 3.1% on average and 7.4% at worst (p14, Falcon's plain attention). What the host takes to register an adapted
parameter has since been measured on that machine (13.2 of its operations; a CPU's ratio had said 13.5), which moves p11 by nothing.

"""


def table(name: str, rows: list[Predicted]) -> list[str]:
    lines = [f"## {name}: {len(rows)} rows", ""]
    lines += [
        "| row | configuration | measured s | predicted | error | trace | datasheet | waits |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for r in rows:
        shown = [f"{r.measured:.4f}", f"{r.measured * (1 + r.error()):.4f}", f"{r.error():+.1%}"]
        traced = r.traced_error()
        shown += ["" if traced is None else f"{traced:+.1%}"]
        shown += [f"{r.error(profiled=False):+.1%}", f"{r.waits():.0%}"]
        lines.append(f"| {r.row['id']} | {knobs(r.row)} | " + " | ".join(shown) + " |")
    return [*lines, "", *summary(rows), "", *by_family(rows), "", *by_job(rows), ""]


def summary(rows: list[Predicted]) -> list[str]:
    lines = ["| | mean of absolute errors | largest | mean of errors | Kendall's tau |", "|---|--:|--:|--:|--:|"]
    for label, profiled in (("profile", True), ("datasheet", False)):
        found = [r.error(profiled=profiled) for r in rows]
        sizes = errors(found)
        shown = [f"{sizes['mean']:.1%}", f"{sizes['largest']:.1%}", f"{statistics.mean(found):+.1%}"]
        lines.append(f"| {label} | " + " | ".join([*shown, f"{kendall(rows, profiled=profiled):.3f}"]) + " |")
    return [*lines, *summary_of_trace(rows)]


def summary_of_trace(rows: list[Predicted]) -> list[str]:
    """Of the rows that were traced; of those that are expected to keep the device busy, too."""
    lines = []
    for label, chosen in (("trace", rows), ("trace, of busy rows", [r for r in rows if r.waits() <= WAITING])):
        found = [error for r in chosen if (error := r.traced_error()) is not None]
        if found:
            sizes, mean = errors(found), statistics.mean(found)
            lines.append(
                f"| {label} ({len(found)} rows) | {sizes['mean']:.1%} | {sizes['largest']:.1%} | {mean:+.1%} | |"
            )
    return lines


def kendall(rows: list[Predicted], *, profiled: bool, each_token: bool = False) -> float:
    """Share of pairs in the measured order less that of pairs in the other (ties are none). ``each_token``: of the seconds of
    a token, not of a step."""
    tokens = [r.row["mbs"] * r.row.get("ga", 1) * r.row["seq"] if each_token else 1 for r in rows]
    measured = [r.measured / n for r, n in zip(rows, tokens, strict=True)]
    both = [(m, m * (1 + r.error(profiled=profiled))) for m, r in zip(measured, rows, strict=True)]
    pairs = list(combinations(both, 2))
    return sum(1 if (a[0] - b[0]) * (a[1] - b[1]) > 0 else -1 for a, b in pairs) / len(pairs)


def by_job(rows: list[Predicted]) -> list[str]:
    """Candidates of one job train the same with the same adapter in the same precision; ranked by the seconds of a token, as
    they split different batches. Jobs of fewer than three candidates rank nothing."""
    jobs: dict[tuple[Any, ...], list[Predicted]] = {}
    for r in rows:
        jobs.setdefault(tuple(str(r.row.get(key)) for key in JOB), []).append(r)
    several = {job: found for job, found in jobs.items() if len(found) >= FEWEST_CANDIDATES}
    if not several:
        return []
    lines = ["| candidates of one job | how many | Kendall's tau, profile | datasheet |", "|---|--:|--:|--:|"]
    for job, found in sorted(several.items()):
        taus = [f"{kendall(found, profiled=profiled, each_token=True):.3f}" for profiled in (True, False)]
        lines.append(f"| {' '.join(v for v in job if v != 'None')} | {len(found)} | {' | '.join(taus)} |")
    pairs = sum(len(f) * (len(f) - 1) // 2 for f in several.values())
    whole = [
        sum(kendall(f, profiled=p, each_token=True) * len(f) * (len(f) - 1) / 2 for f in several.values()) / pairs
        for p in (True, False)
    ]
    return [*lines, f"| all {pairs} pairs | | {whole[0]:.3f} | {whole[1]:.3f} |"]


def by_family(rows: list[Predicted]) -> list[str]:
    families: dict[str, list[Predicted]] = {}
    for r in rows:
        families.setdefault(model_of(r.row).family, []).append(r)
    lines = [
        "| family | rows | mean | largest | trace, mean | largest |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for family, found in sorted(families.items()):
        shown = spread([r.error() for r in found])
        traced = spread([error for r in found if (error := r.traced_error()) is not None])
        lines.append(f"| {family} | {len(found)} | {shown} | {traced} |")
    return lines


def spread(found: list[float]) -> str:
    """Mean and largest, as cells."""
    if not found:
        return "|"
    sizes = errors(found)
    return f"{sizes['mean']:.1%} | {sizes['largest']:.1%}"


if __name__ == "__main__":
    sys.exit(main())
