"""What docs/scale.md says around scale.py's tables, and its picture."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from public_rows import HERE, Predicted

WIDTH: Final = 720
HEIGHT: Final = 360
LEFT: Final = 60
TOP: Final = 24
MOST_GPUS: Final = 16384
COLOURS: Final = {"llama-3-8b": "#d9480f", "llama-3-70b": "#1971c2"}
SHAPES: Final = {
    "llama-3-8b": ("llama-3-8b", "llama-3.1-8b", "llama-2-7b", "mpt-7b"),
    "llama-3-70b": ("llama-3-70b", "llama-2-70b", "mpt-70b"),
}
"""Published models that are about as large as a swept one."""


@dataclass(frozen=True)
class Point:
    model: str
    gpus: int
    tokens_per_second: float
    """Of one GPU."""
    layout: str
    seconds: float
    """Of the processor, for the search."""


@dataclass(frozen=True, kw_only=True)
class Published:
    gpus: int
    tflops: float
    layout: str
    batch: int


HEAD: Final = """# Scale on paper

Made by `python benchmarks/scale.py --markdown docs/scale.md --picture docs/scale.svg`: what the planner predicts of runs that
others have measured and published, and what it plans from 1 to 16,384 GPUs.

![Predicted tokens a second of one GPU against the number of GPUs, with published points](scale.svg)

**How rows are predicted.** Each row of `benchmarks/rows/public-throughput.jsonl` is a published figure with its source, predicted
for its very configuration: model, GPUs, rows, micro-batch, accumulation, shards, tensor parallelism, recomputation. Weights are
float32, gathered in bf16; attention is torch's SDPA, kernels are plain or compiled. All rows of the pages below were taken that
axoc can express; left out are float8, context and pipeline parallelism and asynchronous tensor parallelism, and of llm-foundry's
table rows longer or shorter than 2,048 tokens and models under 1B. What is not the same, and stays in the error: llm-foundry's,
torchtitan's and Kempner's rows reduce gradients in fp32 where axoc's FSDP does in bf16; torchtitan's per-operation checkpoints
are counted as half of the layers; other frameworks' eager code launches other kernels than transformers'.

**What is blind here.** "Rows that were looked at" are llm-foundry's A100 40GB table and Kempner's single node. The others were read
once, after the terms below were in, and gave 14.8% on average over 57 rows (12.6% without llm-foundry's H100 table, which is
of 2023 and its kernels); nothing was changed for them but what "since" names. No factor is fitted to any row.

**The terms**, each with its source in the code:
- Products reach 0.9 of what a generation's best shape was measured to reach (A100 0.859, H100 0.801 of the dense rate:
  `cost/datasheet.py`), or their profile's seconds (H100, H200).
- Collectives take hops and bytes, by ring or tree and by the faster protocol, with NCCL's own constants (`cost/rings.py`,
  `facts/data/links.json`); a ring of thousands of ranks is bound by its hops, which is why large plans have copies.
- Gathers and reductions are hidden unit by unit, in the order FSDP2 issues them (`cost/overlap.py`); they take multiprocessors
  from the kernels they run beside, and weights are copied out of each gather (`cost/communication.py`).
- The slowest of many sets the pace: accelerators of one kind differ by 8% (`cost/stragglers.py`).
- Four GPUs of a board without a switch have a third of their links to each neighbour (`cost/mesh.py`).

Since the blind reading ZeRO-3 and large FSDP units were changed, which no row uses. Collectives that a profile measured on one
node were added, which is behind a switch; used for Kempner's boards without one too they gave 16.1% over the 57 rows, and now
are not, which leaves each row where it was. With the terms of the step that came later the 57 are at 15.5%.

**What remains.** torchtitan's H100 have a power limit of 500 W of 700, which no term knows: +29% to +42%. llm-foundry's H100 table
was measured when kernels for Hopper were new: +20%. Kempner's 70B with accumulation (+24% to +75%): their framework keeps whole
gradients in fp32 between micro-batches, at 8 GPUs to the last GiB. Their 175B is predicted 17% too slow. Without the first
three groups the other 30 rows are off by 5.1% on average. 54 of the 57 are within the band of 35% that plans of several
accelerators state.

"""
GITHUB: Final = "https://github.com"
TITAN: Final = f"{GITHUB}/pytorch/torchtitan/blob"
KEMPNER: Final = f"{GITHUB}/KempnerInstitute/KempnerForge/blob"
SOURCES: Final = {
    "t01 to t08": f"{TITAN}/041336434916bdc0f88c1f89fda176fd3c2092e4/docs/performance.md",
    "t09 to t12": f"{TITAN}/31a17bfdb70bab6f62a13d21816a5339b911d6e3/benchmarks/llama3_h100_202412_torchtitan.md",
    "f01 to f04": f"{GITHUB}/foundation-model-stack/fms-fsdp/blob/0d319983c4b3b7f7b3b5e2c5e7f746746b6f73a9/README.md",
    "m01 to m48": f"{GITHUB}/mosaicml/llm-foundry/blob/061f2c7ce64e655100286584a7629e2a09f827ba/"
    "scripts/train/benchmarking/README.md",
    "k01 to k12": f"{KEMPNER}/9f3f03a070668192230c7c542a3ecebb22d9a20c/benchmarks/mfu_scaling/mfu_scaling_2026-04-05.md",
    "k13 to k22": f"{KEMPNER}/e9f91892905dc840f7048a01e8028083eb4033e7/benchmarks/weak_scaling_160gpu/README.md",
    "k23": f"{KEMPNER}/b62d2e368edeeb259f20281934981812cb001c1a/benchmarks/175b_360gpu/README.md",
    "405B": "The Llama 3 Herd of Models, 2024, https://arxiv.org/abs/2407.21783, table 4",
}


def source_table() -> list[str]:
    return ["## Sources", "", "| rows | page |", "|---|---|"] + [
        f"| {rows} | {page} |" for rows, page in SOURCES.items()
    ]


def machine_table() -> list[str]:
    told = json.loads((HERE / "public-machines.json").read_text(encoding="utf-8"))
    lines = ["## Machines", "", "| machine | its page says | assumed |", "|---|---|---|"]
    return lines + [f"| {name} | {m['says']} | {m['assumed'] or 'nothing'} |" for name, m in told.items()] + [""]


def picture(points: Sequence[Point], published: Sequence[Predicted]) -> str:
    """Lines of predicted plans, rings of published figures, on a scale of equal steps for each doubling."""
    shown = [(name, p) for p in published for name, models in SHAPES.items() if p.row["model"] in models]
    most = max([p.tokens_per_second for p in points] + [p.published for _, p in shown]) * 1.5
    least = min([p.tokens_per_second for p in points] + [p.published for _, p in shown]) / 1.5

    def at(gpus: float, tokens: float) -> tuple[float, float]:
        x = LEFT + math.log2(gpus) / math.log2(MOST_GPUS) * (WIDTH - LEFT - 20)
        y = TOP + (math.log(most) - math.log(tokens)) / (math.log(most) - math.log(least)) * (HEIGHT - TOP - 50)
        return x, y

    parts = [_axes(at, least, most)]
    for i, (name, colour) in enumerate(COLOURS.items()):
        line = " ".join(
            f"{x:.1f},{y:.1f}" for x, y in (at(p.gpus, p.tokens_per_second) for p in points if p.model == name)
        )
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for _, row in (item for item in shown if item[0] == name):
            (x, y), accelerator = at(row.row["gpus"], row.published), row.row["machine"]
            fill = "none" if "a100" in accelerator else colour
            told = f"{row.row['id']}: {row.row['model']}, {accelerator}, {row.published:,.0f}"
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{fill}" stroke="{colour}"><title>{told}</title></circle>'
            )
        parts.append(f'<text x="{LEFT + 10}" y="{TOP + 14 * i + 4}" fill="{colour}">{name}, predicted for H100</text>')
    key = "published: filled on H100 and H200, open on A100; models of 7B and 8B, of 65B and 70B"
    parts.append(f'<text x="{LEFT + 10}" y="{TOP + 14 * len(COLOURS) + 4}" fill="#495057">{key}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'font-family="sans-serif" font-size="11"><rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>{"".join(parts)}</svg>\n'
    )


def _axes(at: object, least: float, most: float) -> str:
    place = at
    assert callable(place)
    parts = []
    for power in range(0, 15, 2):
        x, bottom = place(2**power, least)
        parts.append(f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{bottom:.1f}" stroke="#e9ecef"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16:.1f}" text-anchor="middle" fill="#495057">{2**power:,}</text>')
    for tokens in (200, 500, 1000, 2000, 5000, 10000, 20000):
        if least <= tokens <= most:
            x, y = place(1, tokens)
            parts.append(f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{WIDTH - 20}" y2="{y:.1f}" stroke="#e9ecef"/>')
            parts.append(f'<text x="{x - 6:.1f}" y="{y + 4:.1f}" text-anchor="end" fill="#495057">{tokens:,}</text>')
    middle = (LEFT + WIDTH - 20) / 2
    parts.append(
        f'<text x="{middle:.0f}" y="{HEIGHT - 8}" text-anchor="middle">GPUs; tokens a second of one GPU</text>'
    )
    return "".join(parts)
