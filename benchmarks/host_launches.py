"""What one eager operation costs the host, from a profile's tables of whole models: adds the table ``host_launches``.

    python benchmarks/host_launches.py PROFILE.json [OTHER.json …]

A profile times blocks of small models (``host_models``), forward and backward together, by family, weights and
checkpointing. The compiler knows what each of those blocks launches. Six costs that explain all of them best, by least
squares over logarithms, are what a block of any model is counted with. No measured training run is used. Experts are left
out: with fp32 weights they are run one by one, as no training in bf16 runs them.

Machines with one kind of GPU differ in their hosts, by half and more. The rows of OTHER profiles of that kind join those of
the first one: what is shipped is then of a host between them.
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
NAMES: Final = ("operation", "triton", "dequantize", "adapter", "pass", "checkpoint")
FIRST_GUESS: Final = (3e-5, 3e-4, 3e-5, 1e-4, 1e-4, 1e-3)
ROUNDS: Final = 100
OF_SEVERAL: Final = "; of several machines, one after the other"


@dataclass(frozen=True)
class Fit:
    costs: Floats
    """Seconds, as NAMES."""
    errors: Floats
    """Logarithm of fitted over measured, one a row."""


def main() -> int:
    path, *others = (Path(p) for p in sys.argv[1:])
    profile = json.loads(path.read_text(encoding="utf-8"))
    for other in others:
        join(profile["tables"], json.loads(other.read_text(encoding="utf-8"))["tables"])
    rows = [r for r in profile["tables"]["host_models"]["rows"] if r[0] in MODELS]
    counts = np.array([launched(*row[:3]) for row in rows])
    fit = solve(counts, np.array([row[3] + row[4] for row in rows]))
    for row, error in zip(rows, fit.errors, strict=True):
        print(f"{row[0]:12} {row[1]:6} {'checkpointed' if row[2] else '':13} {np.expm1(error):+.0%}")
    spread = float(np.sqrt(np.mean(fit.errors**2)))
    print({n: f"{c * 1e6:.1f} us" for n, c in zip(NAMES, fit.costs, strict=True)}, f"spread {spread:.0%}")
    profile["tables"]["host_launches"] = table(fit, len(rows), spread)
    from axoc_runtime.calibrate.profile import dumps

    path.write_text(dumps(profile), encoding="utf-8")
    return 0


def join(tables: dict[str, Any], others: dict[str, Any]) -> None:
    """The rows of another machine's models, after those of the first."""
    ours, theirs = tables["host_models"], others["host_models"]
    assert ours["columns"] == theirs["columns"], (ours["columns"], theirs["columns"])
    ours["rows"] += [row for row in theirs["rows"] if row not in ours["rows"]]
    ours["about"] = ours["about"].removesuffix(OF_SEVERAL) + OF_SEVERAL


def table(fit: Fit, rows: int, spread: float) -> dict[str, Any]:
    return {
        "about": f"host seconds of one operation and what comes with it, fitted to {rows} rows of host_models "
        f"(spread {spread:.0%}) by benchmarks/host_launches.py",
        "columns": ["what", "seconds"],
        "rows": [[n, round(float(c), 8)] for n, c in zip(NAMES, fit.costs, strict=True)],
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
    return [*counts, float(len(made)), float(checkpointing)]


def solve(counts: Floats, seconds: Floats) -> Fit:
    """Gauss and Newton on logarithms: a measurement that is off is off by a share of itself."""
    costs = np.array(FIRST_GUESS)
    for _ in range(ROUNDS):
        fitted = counts @ costs
        change, *_ = np.linalg.lstsq(counts / fitted[:, None], np.log(seconds / fitted), rcond=None)
        costs = np.maximum(costs + change, 1e-7)
    return Fit(costs, np.log(counts @ costs / seconds))


if __name__ == "__main__":
    sys.exit(main())
