"""The closed form of memory against the trace, over random configurations of every family.

    python benchmarks/closed_form_vs_trace.py [--markdown docs/closed_form_vs_trace.md] [--set built|judging|shared]
    python benchmarks/closed_form_vs_trace.py --trace 2160 --shared 300

The first form takes seconds: it evaluates the closed form against traces that are kept. The second makes the traces that are
missing (half a second each on one core; it goes on where it stopped). Every third configuration judges: the closed form was
mended by the others alone. Those of random_shared.py came after both.
"""

from __future__ import annotations

import argparse
import json
import lzma
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from axoc.cost.columns import OFFLOADS, STRATEGIES, Columns
from axoc.cost.memory import MemoryColumns, memory
from axoc.cost.scenario import Scenario
from axoc.cost.sizes import sizes_of, trainable_parameters
from axoc.facts.inventory import parse_inventory
from axoc.facts.models import lookup_model
from axoc.ir.facts import ModelFacts
from axoc.ir.request import AdapterRequest

KEPT: Final = Path(__file__).resolve().parent / "rows/closed_form_vs_trace.jsonl.xz"
KEPT_SHARED: Final = KEPT.with_name("closed_form_vs_trace_shared.jsonl.xz")
"""Those of random_shared.py."""
SEED: Final = 20261124
SETS: Final = ("built", "judging", "shared")
OUTLIER: Final = 0.03
GIB: Final = 1 << 30
DEPTHS: Final = ("num_hidden_layers", "n_layer", "num_layers")
PHASES: Final = {
    "forward": (("forward",), ("forward",)),
    "loss": (("loss",), ("loss",)),
    "backward": (
        ("backward_first", "backward_recompute", "backward_last", "backward_embedding"),
        ("backward_first", "backward_middle", "backward_last"),
    ),
    "optimizer": (("optimizer",), ("optimizer",)),
    "evaluate": (("evaluate",), ("evaluate",)),
}
"""Phases that both know: their parts in the closed form, and in the trace."""


@dataclass(frozen=True)
class Compared:
    """One configuration; errors are (closed form - trace) / trace."""

    row: dict[str, Any]
    error: float
    """Of the peak of allocated bytes."""
    phases: dict[str, float]
    peak_bytes: int
    top: str
    """The trace's phase of the peak."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, default=KEPT)
    parser.add_argument("--set", choices=SETS)
    parser.add_argument("--markdown", type=Path, help="write the tables there as well")
    parser.add_argument("--trace", type=int, default=0, help="make this many traces of random_configurations.py first")
    parser.add_argument("--shared", type=int, default=0, help="and this many of random_shared.py")
    options = parser.parse_args()
    if options.trace or options.shared:
        make(options.rows, options.trace, options.shared)
    every = [*read(options.rows), *read(KEPT_SHARED)]
    rows = [r for r in every if "error" not in r and options.set in (None, set_of(r))]
    text = "\n".join(report([compared(row) for row in rows]))
    print(text)
    if options.markdown:
        options.markdown.write_text(HEAD + text + "\n", encoding="utf-8")
    return 0


def read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with lzma.open(path, "rt") as file:
        return [json.loads(line) for line in file]


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with lzma.open(path, "wt", preset=9) as file:
        file.writelines(json.dumps(row, sort_keys=True, separators=(",", ":")) + "\n" for row in rows)


def make(path: Path, count: int, count_shared: int) -> None:
    """Traces what is not there yet. A configuration that cannot be traced is kept with the reason."""
    import traced_rows
    from random_configurations import configurations
    from random_shared import shared

    traced_rows.prepare()
    for place, wanted in ((path, configurations(count, SEED)), (KEPT_SHARED, shared(count_shared))):
        rows = {row["id"]: row for row in read(place)}
        for number, row in enumerate(r for r in wanted if r["id"] not in rows):
            try:
                rows[row["id"]] = row | traced_rows.traced(row)
            except Exception as error:
                rows[row["id"]] = row | {"error": f"{type(error).__name__}: {error}"[:200]}
            if number % 50 == 49:
                write(place, rows.values())
        write(place, rows.values())


def set_of(row: dict[str, Any]) -> str:
    if "strategy" in row:
        return "shared"
    return "judging" if int(row["id"][1:]) % 3 == 2 else "built"


def compared(row: dict[str, Any]) -> Compared:
    found = predicted(row)
    ours = {name: float(values[0]) for name, values in found.phases.items()}
    theirs = row["phases"]
    phases = {}
    for name, (left, right) in PHASES.items():
        one, other = max(ours[p] for p in left), max((theirs[p] for p in right if p in theirs), default=0)
        if other and (name != "evaluate" or row["eval"]):
            phases[name] = one / other - 1
    peak = max(theirs.values())
    return Compared(row, float(found.allocated[0]) / peak - 1, phases, peak, max(theirs, key=lambda p: theirs[p]))


def predicted(row: dict[str, Any]) -> MemoryColumns:
    scenario = scenario_of(row)
    return memory(scenario, columns_of(row, scenario.model))


def model_of(row: dict[str, Any]) -> ModelFacts:
    """Of the depth that was traced."""
    config, layers = dict(row["config"]), row["layers"]
    config |= {key: layers for key in DEPTHS if key in config}
    if isinstance(config.get("layer_types"), list):
        config["layer_types"] = config["layer_types"][:layers]
    return lookup_model(None, config, "config.json", "auto")[0]


def scenario_of(row: dict[str, Any]) -> Scenario:
    model, adapter = model_of(row), adapter_of(row)
    return Scenario(
        model=model,
        sizes=sizes_of(model, adapter),
        cluster=parse_inventory(f"h100-sxm-80gb:{row.get('world', 1)}", None, None)[0],
        seq_length=row["seq"],
        dtype="float32" if row["dtype"] == "fp32" else "bfloat16",
        mixed_precision=row["mixed"],
        adapter=adapter,
        trainable=trainable_parameters(model, adapter),
        quantization="nf4" if row["dtype"] == "nf4" else "none",
        double_quantization=row.get("double_quant", True),
        casts_inputs=row.get("casts", True),
        scales_between=row.get("between", False),
        optimizer=row["optim"],
        attention=row["attention"],
        kernels=row.get("kernels") or ("liger" if row["liger"] else "none"),
        compile=row.get("compile", False),
        packing=row.get("packing", False),
        evaluates=row["eval"],
        steps=None,
        min_unit_parameters=1,  # a block to a unit, as traced
    )


def adapter_of(row: dict[str, Any]) -> AdapterRequest | None:
    if row["method"] == "full":
        return None
    targets = row["targets"]
    return AdapterRequest(
        type="lora",
        rank=row["rank"],
        alpha=32.0,
        dropout=row["dropout"],
        targets=targets if isinstance(targets, str) else tuple(targets),
        use_dora=row.get("dora", False),
    )


def columns_of(row: dict[str, Any], model: ModelFacts) -> Columns:
    values = {
        "strategy": STRATEGIES.index(row.get("strategy") or ("ddp" if row["ddp"] else "single")),
        "data_parallel": row.get("world") or (2 if row["ddp"] else 1),
        "tensor_parallel": 1,
        "replicate_degree": 1,
        "micro_batch": row["mbs"],
        "accumulation": row["ga"],
        "checkpointed_layers": model.num_layers if row["gc"] is True else int(row["gc"]),
        "offload": OFFLOADS.index(row.get("offload", "none")),
    }
    return Columns(**{name: np.array([value], dtype=np.int64) for name, value in values.items()})


def report(found: list[Compared]) -> list[str]:
    lines = []
    for name in SETS:
        chosen = [c for c in found if set_of(c.row) == name]
        if chosen:
            lines += [f"## {name}: {len(chosen)} configurations", "", *tables(chosen), ""]
    return lines + outliers(found)


def tables(found: list[Compared]) -> list[str]:
    lines = ["| | configurations | mean | median | largest | above 3% |", "|---|--:|--:|--:|--:|--:|"]
    lines.append(line("peak", [c.error for c in found]))
    for phase in PHASES:
        lines.append(line(phase, [c.phases[phase] for c in found if phase in c.phases]))
    keys = {
        "family": lambda c: c.row["model"],
        "method": method_of,
        "checkpointing": lambda c: {True: "full", False: "none"}.get(c.row["gc"], "selective"),
        "attention": lambda c: c.row["attention"],
    }
    if "strategy" in found[0].row:
        keys |= {"strategy": lambda c: c.row["strategy"], "loss": lambda c: c.row["kernels"]}
    for title, key in keys.items():
        lines += ["", f"| {title} | configurations | mean | median | largest | above 3% |", "|---|--:|--:|--:|--:|--:|"]
        groups: dict[str, list[float]] = defaultdict(list)
        for one in found:
            groups[key(one)].append(one.error)  # type: ignore[no-untyped-call]
        lines += [line(name, errors) for name, errors in sorted(groups.items())]
    return lines


def method_of(one: Compared) -> str:
    row = one.row
    name = "DoRA" if row.get("dora") else {"full": "full", "lora": "LoRA", "qlora": "QLoRA"}[row["method"]]
    return name + (", Liger" if row["liger"] else "")


def line(name: str, errors: list[float]) -> str:
    sizes = [abs(e) for e in errors]
    above = sum(size > OUTLIER for size in sizes)
    figures = f"{statistics.mean(sizes):.2%} | {statistics.median(sizes):.2%} | {max(sizes):.1%}"
    return f"| {name} | {len(sizes)} | {figures} | {above} |"


def outliers(found: list[Compared]) -> list[str]:
    """Those above 3%, with the reason where the closed form's authors know one."""
    lines = [
        f"## Outliers above {OUTLIER:.0%}",
        "",
        "| row | configuration | error | phase | reason |",
        "|---|---|--:|---|---|",
    ]
    for one in sorted(found, key=lambda c: -abs(c.error)):
        if abs(one.error) > OUTLIER:
            lines.append(f"| {one.row['id']} | {knobs(one.row)} | {one.error:+.1%} | {one.top} | {reason(one)} |")
    return lines


def reason(one: Compared) -> str:
    """Read off the two accounts of memory, tensor by tensor."""
    row = one.row
    if row["model"] == "falcon" and row["attention"] == "eager" and row["gc"] not in (True, False) and one.error < 0:
        return NAMED
    if row.get("strategy") == "fsdp" and row["layers"] == FEWEST and one.error > 0:
        return NO_MIDDLE
    if row.get("strategy") == "zero2" and row["layers"] == FEWEST:
        return LATE
    if row.get("strategy") == "zero3" and one.error > 0:
        return FETCHING
    return UNKNOWN


UNKNOWN: Final = "not known"
FEWEST: Final = 2
NO_MIDDLE: Final = (
    "of two blocks none has a neighbour on either side, whose gather and whose reduced gradients the closed form counts beside "
    "it, as of any deep model"
)
LATE: Final = (
    "the rank that keeps the end of a large embedding makes its buffer in the first block's backward: the closed form takes a part "
    "of the activations to be gone by then, which of two blocks is too much"
)
FETCHING: Final = (
    "several weights that ZeRO-3 fetches ahead are there twice while they are copied out: the closed form counts the most of it beside "
    "all that a block keeps, whichever of its modules that was at"
)
NAMED: Final = (
    "in the first block that is not checkpointed FalconModel still names what the one before returned, its softmax among "
    "it; the closed form counts that name between checkpointed blocks alone"
)


def knobs(row: dict[str, Any]) -> str:
    gc = {True: "gc", False: "no gc"}.get(row["gc"], f"gc {row['gc']}")
    parts = [f"{row['model']}@{row['layers']}", row["method"], row["dtype"], f"autocast {row['mixed']}", gc]
    parts += [f"{row['mbs']} x {row['seq']}", row["attention"], row["optim"]]
    parts += [k for k in ("liger", "eval", "ddp", "dora", "packing") if row.get(k)] + (["ga"] if row["ga"] > 1 else [])
    parts += ["chunked"] if row.get("kernels") == "chunked" else []
    parts += [f"{row['strategy']} x {row['world']}"] if "strategy" in row else []
    if row["method"] != "full":
        targets = row["targets"] if isinstance(row["targets"], str) else "+".join(row["targets"])
        parts += [f"rank {row['rank']}", f"dropout {row['dropout']}", targets]
    return ", ".join(parts)


HEAD: Final = """# The closed form against the trace

Made by `python benchmarks/closed_form_vs_trace.py --markdown docs/closed_form_vs_trace.md`, from traces kept in
`benchmarks/rows/`. The trace runs the real modelling code under fake tensors; on rows measured on a GPU it is exact to a
few hundredths of a percent, so it is the oracle here: random configurations of every family axoc knows, and of one it
does not (granite). Errors are (closed form - trace) / trace, of the peak of allocated bytes and of each phase's.

**Built** configurations were looked at while the closed form was mended; **judging** ones (every third) only afterwards.
When they were first looked at, 425 of them were traced: 0.19% on average, 0.02% in the middle, 9.8% at most, four above
3%. Two terms were missing, which built configurations showed as well, and were then entered: a product saves a factor only
for the other one's gradient, and the two gradients of a tied matrix are summed in a third tensor where autocast casts
neither. A third came from a judging configuration alone, traced later (-6.5%): the copies of experts' low-rank pairs. So
the judging set is no longer unseen. Nothing is fitted: each operation of a block stands in `cost/` with what it saves, and
the peak follows.

A family left out: no figure of the closed form belongs to a family, so leaving one out of the building changes nothing but
the programs that were read for it. The table by family of the judging set is that comparison, and granite, which axoc
does not know and plans as a Llama, shows what a new family gets.

Sharded strategies have traces of their own (`benchmarks/sharded_vs_trace.py`, 102 configurations: DDP, FSDP2 and ZeRO's
stages on 8 and on 2 ranks, full and LoRA, tied and untied heads, evaluation, tensor parallel from 1 x 2 to 4 x 4 ranks). There
the closed form's peaks are 0.04% off on average and 0.8% at most. The measured ZeRO-3 row of `docs/accuracy.md`
ran with DeepSpeed's default bucket, 0.92 GiB larger than what axoc emits; but for that it agrees to 0.1%, reserved memory too.

All of `random_configurations.py` was traced again at once, by one state of the trace; 72 of 2,160 have no trace: transformers
refuses a hidden size that is no multiple of the heads (39) and Phi-3's padding id outside a small vocabulary (10), PEFT
dropout on experts (3), Falcon's code a pair of settings that no published model has (8), and the trace DoRA over four-bit
weights (12).

**Shared** configurations (`random_shared.py`) are of what the others leave out: every family under FSDP2 and ZeRO's stages on 2 to 32
ranks, packed rows, the chunked loss; the first 300 of them. They were traced last. When first looked at, 273 of them were off by
0.87% on average, 27 above 3%, and experts under ZeRO-3 were left out. They then led to what ZeRO-3 fetches module by module
(`cost/fetches.py`), keeps of frozen layers' inputs and of experts' weights; to whose share ZeRO-1 and 2 keep of experts, and
which gradients wait; and to FSDP2's uneven shares of experts (eight over three ranks). So they judge no more. Later came that
ZeRO-3's order of modules has a recomputed block's twice, so that it fetches earlier and keeps longer what comes before it (the
embedding of s0229, 0.96 GiB, was there during the top block's backward: -3.0%, now +1.3%), and that experts' weights which were
fetched ahead are autograd's, and no longer gathered ones, from the moment they ran (s0083: +16.8%, now -0.3%). Under FSDP2
models of two blocks are off (three of them with five blocks: -0.6 to -0.04%).

**Offload** to the host under ZeRO: 57 further configurations (`random_shared.offloaded`, `rows/offloaded_trace.jsonl.xz`; with the
optimizer or optimizer and parameters on the host) led to what the device then still holds (up to 29% short before). They are off by
0.69% on average and 0.08% in the middle, two above 3%: Llama of two blocks under ZeRO-2 with accumulation (+17.8%: gradients too large
for the bucket are counted before they arrive) and GPT-NeoX of two blocks with adapters under ZeRO-3 (+8.5%: 0.22 GiB of what is
gathered, with no weights left to set it against).

**Compiled** blocks (`benchmarks/compiled_vs_trace.py`, `random_shared.compiled`, `rows/compiled_trace.jsonl.xz`) are counted
over the programs that torch.compile makes of them (`cost/compiled/`): 49 configurations of seven families on one GPU, three
of four with adapters (a third of these with PEFT's casts), kept, recomputed and partly recomputed, packed or not, with each
kind of loss. 24 of them were looked at while this was built: they are off by 0.09% on average, 0.03% in the middle and 0.8%
at most. 25 judge, traced once it stood: 0.09% on average, 0.04% in the middle and 0.8% at most. The measured rows with
compiled blocks (`h100-sweep.jsonl`, packed) judge as well: allocated within 0.1%; reserved within 2%, of which four led to
the order that is taken where peaks are alike (1B-full-05, 1B-full-08, 3B-full-08, 8B-LoRA-04). Before, adapters were 6 to 11%
too high, and full fine-tuning with all blocks recomputed 2 to 6%. The 8B QLoRA run of the runtime was 13% too high and is at
-0.0%; of four-bit weights there is no trace here. Six of the adapters' configurations were
traced again with dropout, once the trace could compile it: the peak is off by 0.9% at most.
Eight of four blocks of Llama 3.2 1B under DDP and FSDP2 on 2 and
8 ranks, full and LoRA, are off by 0.01%.

What is not covered, because the trace does not cover it or differs there from CUDA: int8, modules
trained beside an adapter, fp32 attention with a mask or dropout (the trace runs the CPU's kernel), GPT-2 with four-bit
weights (the trace leaves its Conv1D whole), Liger with experts.

"""


if __name__ == "__main__":
    sys.exit(main())
