"""Host memory and disk of whole launches on this machine, predicted and measured: what docs/host-memory.md holds.

    python benchmarks/host_memory.py [--folder DIR] [--json rows.jsonl] [CASE ...]      measures
    python benchmarks/host_memory.py --tables rows.jsonl [--folder DIR]                 prints them beside the predictions

Makes a model of SmolLM2-135M's shape with random weights, plans each case for this machine's CPU, launches its bundle as a
user does, and reads what the kernel says of every process four times a second (/proc/PID/smaps_rollup). "held" is
anonymous and shared memory, which nothing but the process's end gives back; "mapped" is pages of files (weights read in
place, libraries), which the kernel drops when it needs room, so they are no part of a plan's need. Needs Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml
from axoc import driver
from axoc.cost.disk import KEPT_CHECKPOINTS, RUN_ITEMS
from axoc.ir.estimate import MemoryEstimate
from axoc.ir.plan import Plan

ROOT: Final = Path(__file__).resolve().parent.parent
CONFIG: Final = ROOT / "specs/smollm2-135m.config.json"
MIB: Final = 1 << 20
SECONDS_BETWEEN: Final = 0.25
PHASES: Final = ("load", "train", "save", "finish")

LORA: Final = {"type": "lora", "rank": 16, "alpha": 32}
CASES: Final[dict[str, dict[str, Any]]] = {
    # name: strategy, processes, adapter, dtype it is trained in, dtype the files are in
    "single, LoRA": {"type": "ddp", "processes": 1, "adapter": LORA, "dtype": "float32", "files": "float32"},
    "ddp, LoRA": {"type": "ddp", "processes": 2, "adapter": LORA, "dtype": "float32", "files": "float32"},
    "ddp, LoRA, files in bf16": {
        "type": "ddp",
        "processes": 2,
        "adapter": LORA,
        "dtype": "float32",
        "files": "bfloat16",
    },
    "single, full": {"type": "ddp", "processes": 1, "adapter": "none", "dtype": "float32", "files": "float32"},
    "ddp, full": {"type": "ddp", "processes": 2, "adapter": "none", "dtype": "float32", "files": "float32"},
    "fsdp, full": {"type": "fsdp", "processes": 2, "adapter": "none", "dtype": "float32", "files": "float32"},
    "zero2, full": {"type": "zero2", "processes": 2, "adapter": "none", "dtype": "float32", "files": "float32"},
    "zero3, full": {"type": "zero3", "processes": 2, "adapter": "none", "dtype": "float32", "files": "float32"},
    "zero2, LoRA": {"type": "zero2", "processes": 2, "adapter": LORA, "dtype": "float32", "files": "float32"},
}


@dataclass
class Seen:
    """Peaks of one launch, in bytes, by phase; the output folder's largest size."""

    held: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    mapped: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    output: int = 0
    checkpoint: int = 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help="names of cases; all by default")
    parser.add_argument("--folder", type=Path, default=Path("host-memory"), help="where models and runs go")
    parser.add_argument("--json", type=Path, help="write what was measured there, a line a case")
    parser.add_argument("--tables", type=Path, help="measure nothing: print these rows beside what is predicted now")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    make_models(options.folder)
    if options.tables:
        print(
            "\n".join(
                tables([json.loads(r) for r in options.tables.read_text().splitlines()], options.folder.resolve())
            )
        )
        return 0
    rows = []
    for name in options.cases or CASES:
        row = measure(name, CASES[name], options.folder.resolve())
        rows.append(row)
        print(json.dumps(row), flush=True)
    if options.json:
        options.json.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return 0


def tables(rows: list[dict[str, Any]], folder: Path) -> list[str]:
    """Markdown: host memory by phase in MiB, predicted / measured; then disk."""
    found = [(row, predicted(CASES[row["case"]], folder)) for row in rows]
    lines = ["| case | " + " | ".join(PHASES) + " | peak | error |", "|---|" + "--:|" * (len(PHASES) + 2)]
    for row, memory in found:
        ours = {p.phase: sum(i.bytes for i in p.items) for p in memory.host_by_phase}
        held = row["held"]
        cells = [f"{ours[p] / MIB:,.0f} / {held[p] / MIB:,.0f}" if p in held else "-" for p in PHASES]
        peak = max(held.values())
        cells += [f"{memory.host_bytes / MIB:,.0f} / {peak / MIB:,.0f}", f"{memory.host_bytes / peak - 1:+.0%}"]
        lines.append(f"| {row['case']} | " + " | ".join(cells) + " |")
    lines += ["", "| case | one checkpoint | error | output folder | error |", "|---|--:|--:|--:|--:|"]
    for row, memory in found:
        disk = {i.item: i.bytes for i in memory.disk_ledger}
        one, output = disk["checkpoints"] / KEPT_CHECKPOINTS, sum(disk.get(i, 0) for i in RUN_ITEMS)
        cells = [f"{one / MIB:,.0f} / {row['checkpoint'] / MIB:,.0f}", f"{one / row['checkpoint'] - 1:+.1%}"]
        cells += [f"{output / MIB:,.0f} / {row['output'] / MIB:,.0f}", f"{output / row['output'] - 1:+.1%}"]
        lines.append(f"| {row['case']} | " + " | ".join(cells) + " |")
    return lines


def predicted(case: dict[str, Any], folder: Path) -> MemoryEstimate:
    """What the planner says now of the case's spec."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", dir=folder) as file:
        file.write(yaml.safe_dump(spec(case, folder)))
        file.flush()
        result = driver.plan(Path(file.name), None).result
    assert isinstance(result, Plan), case
    return result.chosen.estimate.memory


def make_models(folder: Path) -> None:
    """The same random weights in both dtypes, with a tokenizer of characters, and rows."""
    if (folder / "data.jsonl").is_file():
        return
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sys.path.insert(0, str(ROOT / "benchmarks/gpu_runtime"))
    import make_model

    values = json.loads(CONFIG.read_text(encoding="utf-8"))
    kind = values.pop("model_type")
    for key in ("architectures", "torch_dtype"):
        values.pop(key, None)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **values))
    for dtype in (torch.bfloat16, torch.float32):
        target = folder / str(dtype).removeprefix("torch.")
        model.to(dtype).save_pretrained(target)
        make_model.make_tokenizer(str(target))
    make_model.make_rows(str(folder / "data.jsonl"))


def measure(name: str, case: dict[str, Any], folder: Path) -> dict[str, Any]:
    work = folder / name.replace(", ", "-").replace(" ", "-")
    subprocess.run(["rm", "-rf", str(work)], check=True)
    work.mkdir()
    (work / "spec.yaml").write_text(yaml.safe_dump(spec(case, folder)), encoding="utf-8")
    axoc = [sys.executable, "-m", "axoc", "plan", "spec.yaml", "--out", "bundle"]
    subprocess.run(axoc, cwd=work, check=True, stdout=subprocess.DEVNULL)
    seen = launch(work, case["processes"])
    return {
        "case": name,
        "held": dict(seen.held),
        "mapped": dict(seen.mapped),
        "output": seen.output,
        "checkpoint": seen.checkpoint,
    }


def spec(case: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Three checkpoints, so that the third is written while two are kept."""
    return {
        "version": 1,
        "name": "host-memory",
        "model": {"id": str(folder / case["files"]), "dtype": case["dtype"]},
        "adapter": case["adapter"],
        "dataset": {"path": str(folder / "data.jsonl"), "validation_split": 0.02, "max_seq_length": 128},
        "training": {"max_steps": 3, "global_batch_size": 2, "save_steps": 1, "logging_steps": 1},
        "distributed": {"type": case["type"], "gpu_count": case["processes"], "mixed_precision": "no"},
        "tracking": [],
        "output_dir": "output",
        "inventory": "cpu",
    }


def launch(work: Path, processes: int) -> Seen:
    """One process needs no launcher: torchrun would make it a group of one, which accelerate wraps in DDP on a CPU."""
    environment = os.environ | {"AXOC_PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    command = [str(work / "bundle/launch.sh"), "--no-install"]
    if processes == 1:
        environment |= {"PYTHONPATH": str(work / "bundle/runtime")}
        steps = " && ".join(f'"{sys.executable}" -m axoc_runtime {s} "$1"' for s in ("prepare", "train", "finish"))
        command = ["sh", "-c", steps, "sh", str(work / "bundle/job.json")]
    log = work / "log.txt"
    seen = Seen()
    with log.open("wb") as stream:
        run = subprocess.Popen(command, cwd=work, stdout=stream, stderr=subprocess.STDOUT, env=environment)
        while run.poll() is None:
            sample(work, log, seen)
            time.sleep(SECONDS_BETWEEN)
    if run.returncode != 0:
        raise SystemExit(f"{work}: exit {run.returncode}: {log.read_text()[-2000:]}")
    sample(work, log, seen)
    return seen


def sample(work: Path, log: Path, seen: Seen) -> None:
    """Adds up the runtime's processes and looks at what is on disk."""
    found = [p for p in Path("/proc").iterdir() if p.name.isdigit() and runs(p, work)]
    phase = phase_of(found, work, log) if found else ""
    parts = [rollup(p) for p in found]
    if found and phase == phase_of(found, work, log):  # else it is of neither
        seen.held[phase] = max(seen.held[phase], sum(p["Pss_Anon"] + p["Pss_Shmem"] for p in parts))
        seen.mapped[phase] = max(seen.mapped[phase], sum(p["Pss_File"] for p in parts))
    output = work / "output"
    sizes = {p: size for p in output.rglob("*") if (size := size_of(p))}
    seen.output = max(seen.output, sum(sizes.values()))
    for checkpoint in output.glob("checkpoint-*"):
        seen.checkpoint = max(seen.checkpoint, sum(s for p, s in sizes.items() if checkpoint in p.parents))


def runs(process: Path, work: Path) -> bool:
    """A Python of this bundle's runtime, torchrun's own process included."""
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"axoc_runtime" in words and str(work / "bundle/job.json").encode() in words


def phase_of(found: list[Path], work: Path, log: Path) -> str:
    words = b" ".join((p / "cmdline").read_bytes() for p in found if (p / "cmdline").exists())
    if b"prepare" in words or b"preflight" in words:
        return "prepare"
    if b"finish" in words:
        return "finish"
    output = work / "output"
    if b"before training" not in log.read_bytes():  # said when the model is wrapped and was evaluated once
        return "load"
    half = [p for p in output.glob("checkpoint-*") if not (p / ".axoc-complete").exists()]
    return "save" if half or list(output.glob(".*.new-*")) else "train"


def rollup(process: Path) -> dict[str, int]:
    """Bytes by name; zeros for a process that has ended."""
    try:
        lines = (process / "smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return defaultdict(int)
    return {name: int(rest.split()[0]) * 1024 for name, rest in (line.split(":") for line in lines)}


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0


if __name__ == "__main__":
    sys.exit(main())
