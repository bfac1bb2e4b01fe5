"""What one eager operation costs the host, from a profile's tables of whole models: adds the table ``host_launches``.

    python benchmarks/host_launches.py PROFILE.json [OTHER.json …]

A profile times blocks of small models (``host_models``), forward and backward together, by family, weights and
checkpointing. The compiler knows what each of those blocks launches. Six costs that explain all of them best, by least
squares over logarithms, are what a block of any model is counted with. No measured training run is used. Experts are left
out: with fp32 weights they are run one by one, as no training in bf16 runs them.

Machines with one kind of GPU differ in their hosts, by half and more, and so does one from hour to hour. The rows of OTHER profiles
of that kind join those of the first one. Each machine has a pace of its own in the fit; what is shipped is a host of the
mean pace. A seventh cost, of a module that is walked past, comes from configurations measured by kernel_times.py.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from axoc.cost.columns import Floats

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "runtime"))

MODELS: Final = {
    "llama": "llama-3.2-1b",
    "mistral": "mistral-7b-v0.3",
    "qwen2": "qwen2.5-0.5b",
    "qwen3": "qwen3-0.6b",
    "gemma2": "gemma-2-2b",
    "gemma3_text": "gemma-3-1b",
    "phi3": "phi-3-mini-4k",
    "olmo2": "olmo-2-7b",
    "falcon": "falcon-7b",
    "gpt_neox": "pythia-1.4b",
    "gpt2": "gpt2-xl",
}
"""A model of the catalog for each family: blocks launch the same whatever their widths."""
NAMES: Final = ("operation", "triton", "dequantize", "adapter", "pass", "saved")
FIRST_GUESS: Final = (3e-5, 3e-4, 3e-5, 1e-4, 1e-4, 5e-5)
WALK_SECONDS: Final = 2.3e-6
"""Of a module, in each of the five walks of a step of one micro-step, on a host of the mean pace: 3.0 microseconds, the median over
the adapters of rows/h100-kernel-times.jsonl.xz of what the host takes before the first forward and after the last backward,
less clipping, the optimizer and what the smallest model takes; on a host whose pace was 1.3, the third of the H100's."""
ROUNDS: Final = 300
SMALL_ERROR: Final = 0.1
OF_SEVERAL: Final = "; of several machines, one after the other"


@dataclass(frozen=True)
class Fit:
    costs: Floats
    """Seconds, as NAMES, of a host of the mean pace."""
    paces: Floats
    """How many times as long each machine takes; their logarithms add up to none."""
    errors: Floats
    """Logarithm of fitted over measured, one a row."""


def main() -> int:
    path, *others = (Path(p) for p in sys.argv[1:])
    profile = json.loads(path.read_text(encoding="utf-8"))
    for other in others:
        join(profile["tables"], json.loads(other.read_text(encoding="utf-8"))["tables"])
    rows = [r for r in profile["tables"]["host_models"]["rows"] if r[0] in MODELS]
    counts = np.array([launched(*row[:3]) for row in rows])
    fit = solve(counts, np.array([row[3] + row[4] for row in rows]), machines(rows))
    for row, error in zip(rows, fit.errors, strict=True):
        print(f"{row[0]:12} {row[1]:6} {'checkpointed' if row[2] else '':13} {np.expm1(error):+.0%}")
    spread = float(np.sqrt(np.mean(fit.errors**2)))
    print({n: f"{c * 1e6:.1f} us" for n, c in zip(NAMES, fit.costs, strict=True)}, f"spread {spread:.0%}")
    print("paces of the machines:", fit.paces.round(2))
    profile["tables"]["host_launches"] = table(fit, len(rows), spread)
    from axoc_runtime.calibrate.profile import dumps

    path.write_text(dumps(profile), encoding="utf-8")
    return 0


def machines(rows: list[list[Any]]) -> list[int]:
    """Of each row, by order: a machine's rows are no two of one model."""
    found: list[int] = []
    seen: set[tuple[Any, ...]] = set()
    machine = 0
    for row in rows:
        if tuple(row[:3]) in seen:
            seen, machine = set(), machine + 1
        seen.add(tuple(row[:3]))
        found.append(machine)
    return found


def join(tables: dict[str, Any], others: dict[str, Any]) -> None:
    """The rows of another machine's models, after those of the first."""
    ours, theirs = tables["host_models"], others["host_models"]
    assert ours["columns"] == theirs["columns"], (ours["columns"], theirs["columns"])
    ours["rows"] += [row for row in theirs["rows"] if row not in ours["rows"]]
    ours["about"] = ours["about"].removesuffix(OF_SEVERAL) + OF_SEVERAL


def table(fit: Fit, rows: int, spread: float) -> dict[str, Any]:
    return {
        "about": f"host seconds of one operation and what comes with it, fitted to {rows} rows of host_models of {len(fit.paces)} "
        f"machines (spread {spread:.0%}; paces {', '.join(f'{p:.2f}' for p in fit.paces)}) by benchmarks/host_launches.py",
        "columns": ["what", "seconds"],
        "rows": [
            *([n, round(float(c), 8)] for n, c in zip(NAMES, fit.costs, strict=True)),
            ["walk", WALK_SECONDS],
        ],
    }


def launched(family: str, variant: str, checkpointing: bool) -> list[float]:
    """How often each of NAMES comes in a block's forward and backward, as the planner counts them."""
    from axoc.cost import stretches
    from axoc.cost.activations import setting
    from axoc.cost.kernels import kernels_of
    from closed_form import columns_of, scenario_of

    row = {
        "model": MODELS[family],
        "method": variant if variant in ("lora", "qlora") else "full",
        "dtype": {"fp32": "fp32", "qlora": "nf4"}.get(variant, "bf16"),
        "liger": variant == "liger",
        "gc": checkpointing,
        "mbs": 1,
        "seq": 32,
    }
    scenario = scenario_of(row, "h100-sxm-80gb")
    s = setting(scenario, columns_of(row, scenario.model))
    if variant == "qlora":  # quantized as it was, in bf16: nothing raised to fp32 as PEFT's preparation does
        s = replace(s, stream=2.0, weight=2.0)
    *_, (_, passes) = stretches.grouped_blocks(s, kernels_of(scenario), np.array([32.0]))
    made = [passes.forward, passes.backward, *([passes.again] if checkpointing else [])]
    counts = [sum(getattr(p, n) for p in made) for n in stretches.COUNTED]
    return [*counts, float(len(made)), checkpointing * passes.saved]


def solve(counts: Floats, seconds: Floats, machine: list[int]) -> Fit:
    """Gauss and Newton on logarithms: a measurement that is off is off by a share of itself. The sum of absolute errors, by
    weighting anew: single rows are off by twofold."""
    costs, paces = np.array(FIRST_GUESS), np.zeros(max(machine) + 1)
    own = np.eye(len(paces))[machine]
    own = own[:, 1:] - own[:, :1]  # their logarithms add up to none
    for _ in range(ROUNDS):
        fitted = counts @ costs
        errors = np.log(seconds / fitted) - paces[machine]
        weights = 1.0 / np.sqrt(np.maximum(np.abs(errors), SMALL_ERROR))
        moved = np.hstack([counts * costs / fitted[:, None], own]) * weights[:, None]
        change, *_ = np.linalg.lstsq(moved, errors * weights, rcond=None)
        costs = np.maximum(costs * np.exp(np.clip(change[: len(costs)], -0.5, 0.5)), 1e-7)
        others = change[len(costs) :]
        paces += np.concatenate([[-np.sum(others)], others])
    return Fit(costs, np.exp(paces), paces[machine] + np.log(counts @ costs / seconds))


if __name__ == "__main__":
    sys.exit(main())
