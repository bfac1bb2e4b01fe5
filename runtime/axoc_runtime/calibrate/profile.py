"""The calibration profile: what was measured, where, with which versions, and what is missing (docs/calibration.md)."""

from __future__ import annotations

import datetime
import json
import os
import platform
import sys
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import torch

from axoc_runtime.calibrate import (
    attention,
    check,
    collectives,
    copies,
    experts,
    host,
    liger,
    loss,
    matmul,
    memory,
    optimizer,
    pointwise,
    quantized,
    sustained,
    trainer,
)
from axoc_runtime.calibrate.clock import Clock, CpuClock, CudaClock, now
from axoc_runtime.calibrate.progress import Bar
from axoc_runtime.calibrate.tables import Filled, Table, fill
from axoc_runtime.errors import EXIT_INPUTS, RuntimeFailure

SCHEMA_VERSION: Final = 1
PACKAGES: Final = ("torch", "transformers", "accelerate", "peft", "bitsandbytes", "liger-kernel", "triton")
NOT_MEASURED: Final = {"attention_flex": ["flex attention has to be compiled, which takes longer than all tables"]}


def tables(device: str, *, small: bool) -> list[Table]:
    """In the order they are measured: the cheap, then by need, so that too little time costs the least."""
    cheap = [
        memory.table(small=small),
        host.operations_table(small=small),
        host.blocks_table(small=small),
        attention.default_table(small=small),
        pointwise.gather_table(small=small),
        loss.table(small=small),
        copies.table(small=small),
        quantized.table(small=small),
        sustained.table(small=small),
        experts.table(small=small),
        experts.moves_table(small=small),
        attention.varlen_table(small=small),
        attention.flash_4_table(small=small),
        optimizer.table(small=small),
        optimizer.host_table(small=small),
        loss.liger_table(small=small),
        liger.table(small=small),
        collectives.table(small=small, device=device),
    ]
    long = [
        attention.table(small=small),
        matmul.table(small=small),
        pointwise.table(small=small),
        trainer.table(small=small),
        host.models_table(small=small),
        memory.end_table(small=small),
    ]
    return cheap + long


def make(device: str, seconds: float, *, only: tuple[str, ...], check: bool, quiet: bool) -> dict[str, Any]:
    """Measures everything within about ``seconds`` (the check comes on top). Raises RuntimeFailure for unknown tables."""
    began = now()
    clock: Clock = CudaClock() if device == "cuda" else CpuClock()
    if device == "cpu":
        torch.set_num_threads(1)  # tiny tensors: more threads only wait for each other
    warnings.filterwarnings("ignore")  # of backends that cannot take a shape, which "missing" says
    torch.manual_seed(0)
    chosen = _chosen(tables(device, small=clock.small), only)
    bar = Bar(sum(len(t.points) for t in chosen), quiet=quiet)
    filled = []
    for table in chosen:
        filled.append(fill(table, clock, began + seconds, bar))
        bar.finished(table.name, len(table.points), len(filled[-1].rows), filled[-1].seconds)
    checked = _checked(clock, quiet) if check else []
    return _profile(clock, filled, checked, now() - began)


def _chosen(all_tables: list[Table], only: tuple[str, ...]) -> list[Table]:
    names = [t.name for t in all_tables]
    unknown = [name for name in only if name not in names]
    if unknown:
        raise RuntimeFailure(f"no such table: {', '.join(unknown)}", EXIT_INPUTS, f"choose from {', '.join(names)}")
    return [t for t in all_tables if not only or t.name in only]


def _checked(clock: Clock, quiet: bool) -> list[dict[str, Any]]:
    return check.run(clock, (lambda line: None) if quiet else lambda line: print(line, file=sys.stderr, flush=True))


def _profile(clock: Clock, filled: list[Filled], checked: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    made = {f.table.name: f.to_dict() for f in filled if f.rows}
    if "collectives" in made:
        rows = next(f.rows for f in filled if f.table.name == "collectives")
        made["collectives"] |= collectives.flattened(rows)
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "axoc calibration profile",
        "made": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "source": "python -m axoc_runtime.calibrate",
        "seconds": round(seconds, 1),
        "device": _device(clock),
        "host": {"processor": _processor(), "cores": os.cpu_count(), "python": platform.python_version()},
        "versions": _versions(),
        "missing": {f.table.name: f.missing for f in filled if f.missing} | NOT_MEASURED,
        "tables": made,
        "check": checked,
    }


def _device(clock: Clock) -> dict[str, Any]:
    if clock.device.type == "cpu":
        return {"type": "cpu", "name": _processor(), "cache_bytes": clock.cache_bytes}
    p = torch.cuda.get_device_properties(clock.device)
    return {
        "type": "cuda",
        "name": p.name,
        "count": torch.cuda.device_count(),
        "total_bytes": p.total_memory,
        "multiprocessors": p.multi_processor_count,
        "cache_bytes": clock.cache_bytes,
        "compute_capability": f"{p.major}.{p.minor}",
        "cuda": torch.version.cuda or torch.version.hip,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
    }


def _processor() -> str:
    """As /proc/cpuinfo names it, which platform.processor() does not on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return next((ln.split(":", 1)[1].strip() for ln in lines if ln.startswith("model name")), platform.machine())


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def dumps(profile: dict[str, Any]) -> str:
    """JSON with one line a row: diffs of profiles are then readable."""
    text = json.dumps(profile, indent=1, ensure_ascii=False, allow_nan=False, default=str)
    return _one_line_rows(text) + "\n"


def _one_line_rows(text: str) -> str:
    """Joins lists of scalars, which json.dumps spreads over a line an element."""
    lines: list[str] = []
    gathered: list[str] | None = None
    for line in text.splitlines():
        if line.endswith("["):
            if gathered is not None:
                lines += gathered
            gathered = [line]
        elif gathered is None:
            lines.append(line)
        elif line.strip() in ("]", "],"):
            lines.append(gathered[0] + ", ".join(x.strip().rstrip(",") for x in gathered[1:]) + line.strip())
            gathered = None
        elif line.endswith("{"):
            lines += [*gathered, line]
            gathered = None
        else:
            gathered.append(line)
    return "\n".join(lines)


def closing(profile: dict[str, Any], out: Path) -> str:
    """What was left out, and where the profile is."""
    lines = [
        f"  {name}: {reasons[0]}" + (f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else "")
        for name, reasons in profile["missing"].items()
    ]
    rows = sum(len(t["rows"]) for t in profile["tables"].values())
    return "\n".join(
        [
            "Left out:",
            *lines,
            f"Written: {out}, {rows} rows in {profile['seconds']:.0f} s on {profile['device']['name']}",
        ]
    )
