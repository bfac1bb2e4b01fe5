"""Where a training step's time goes: kernels by class and phase, and the host's seconds, beside what the planner counts.

    python benchmarks/kernel_times.py measure FOLDER [--only REGEX] [--seconds 280] [--device cpu] [--no-pieces]
    python benchmarks/kernel_times.py compare FOLDER/steps.jsonl [--kernels]

``measure`` runs CONFIGURATIONS (rows as measure.py takes them; none of a set that judges) with the plain Trainer, each in a
process of its own: settling steps, steps by the clock, one with its kernels recorded, some with the device waited for after
each phase, and passes over a row of 32 tokens, whose kernels take nothing, so that what they take is the host's. Pieces of a
step that the calibration has no table of come last (kernel_pieces.py). ``compare`` needs the compiler, and no GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "runtime"))

import measure

SETTLING: Final = 3
TIMED: Final = 6
WAITED_FOR: Final = 3
SHORT: Final = 32
"""Tokens of the row that only the host takes time for."""
SHORT_PASSES: Final = 12
PHASES: Final = ("forward", "backward", "optimizer")
"""A micro-step's first two; the third is what follows the last of them."""
CONFIGURATIONS: Final[list[dict[str, Any]]] = [
    {"id": "lora-recomputed", "model": "qwen3-4b", "method": "lora", "dtype": "bf16", "gc": True, "mbs": 2, "seq": 2048},
    {"id": "qlora-recomputed", "model": "llama-3-8b", "method": "qlora", "dtype": "nf4", "gc": True, "mbs": 1, "seq": 2048},
    {"id": "packed-1", "model": "llama-3.2-1b", "method": "full", "dtype": "bf16", "gc": False, "mbs": 1, "ga": 8,
     "seq": 2048, "kernels": "chunked", "compile": True, "packing": True, "lengths": "chat"},
    {"id": "packed-recomputed", "model": "llama-3.2-1b", "method": "full", "dtype": "bf16", "gc": True, "mbs": 16,
     "seq": 2048, "kernels": "liger", "compile": True, "packing": True, "lengths": "chat"},
    {"id": "unpacked", "model": "llama-3.2-1b", "method": "full", "dtype": "bf16", "gc": False, "mbs": 2, "ga": 4,
     "seq": 2048, "kernels": "chunked", "compile": True, "lengths": "chat", "settling": 5},
    {"id": "qwen3-liger", "model": "qwen3-0.6b", "method": "full", "dtype": "bf16", "gc": False, "mbs": 4, "seq": 2048,
     "liger": True},
    {"id": "gemma-lora-liger", "model": "gemma-2-2b", "method": "lora", "dtype": "bf16", "gc": False, "mbs": 1, "seq": 2048,
     "attention": "eager", "liger": True},
    {"id": "experts-lora", "model": "qwen3-30b-a3b@8", "method": "lora", "dtype": "bf16", "gc": True, "mbs": 2, "seq": 2048,
     "targets": ["q_proj", "k_proj", "v_proj", "o_proj"]},
    {"id": "lora-fused", "model": "phi-3-mini-4k", "method": "lora", "dtype": "bf16", "gc": False, "mbs": 2, "seq": 2048,
     "rank": 64},
    {"id": "lora-kept", "model": "llama-3-8b", "method": "lora", "dtype": "bf16", "gc": False, "mbs": 1, "seq": 2048},
    {"id": "layer-norm", "model": "pythia-1.4b", "method": "full", "dtype": "fp32", "gc": True, "mbs": 4, "seq": 2048},
    {"id": "long", "model": "llama-3.2-1b", "method": "full", "dtype": "bf16", "gc": False, "mbs": 2, "seq": 16384,
     "liger": True},
    {"id": "qwen-recomputed", "model": "qwen2.5-0.5b", "method": "full", "dtype": "fp32", "gc": True, "mbs": 8, "seq": 1024},
    {"id": "lora-packed-1", "model": "llama-3-8b", "method": "lora", "dtype": "bf16", "gc": False, "mbs": 1, "ga": 2,
     "seq": 2048, "kernels": "chunked", "compile": True, "packing": True, "lengths": "chat"},
    {"id": "qlora-compiled", "model": "llama-3.2-3b", "method": "qlora", "dtype": "nf4", "gc": False, "mbs": 4, "seq": 2048,
     "kernels": "liger", "compile": True, "casts": False, "between": True},
    {"id": "experts-full", "model": "mixtral-8x7b@4", "method": "full", "dtype": "bf16", "gc": True, "mbs": 1, "seq": 2048},
    {"id": "packed-16", "model": "llama-3.2-1b", "method": "full", "dtype": "bf16", "gc": False, "mbs": 16, "seq": 2048,
     "kernels": "chunked", "compile": True, "packing": True, "lengths": "chat"},
    {"id": "qlora-kept", "model": "llama-3-8b", "method": "qlora", "dtype": "nf4", "gc": False, "mbs": 4, "seq": 2048,
     "kernels": "liger"},
    {"id": "padded", "model": "llama-3.2-1b", "method": "full", "dtype": "bf16", "gc": False, "mbs": 8, "ga": 2, "seq": 2048,
     "lengths": "chat", "settling": 5},
    {"id": "lora-packed-recomputed", "model": "llama-3.2-3b", "method": "lora", "dtype": "bf16", "gc": True, "mbs": 8,
     "seq": 2048, "kernels": "liger", "compile": True, "packing": True, "lengths": "chat"},
    {"id": "long-recomputed", "model": "llama-3.2-1b", "method": "full", "dtype": "bf16", "gc": True, "mbs": 4, "seq": 16384,
     "kernels": "liger", "compile": True},
    {"id": "gpt2", "model": "gpt2-medium", "method": "full", "dtype": "fp32", "gc": False, "mbs": 4, "seq": 1024},
    {"id": "base", "model": "llama-3.2-1b", "method": "full", "dtype": "fp32", "gc": True, "mbs": 4, "seq": 2048},
]  # fmt: skip
TINY: Final[list[dict[str, Any]]] = [
    {"id": "tiny", "model": "tiny", "method": "full", "dtype": "bf16", "gc": True, "mbs": 1, "ga": 2, "seq": 64},
    {
        "id": "tiny-compiled",
        "model": "tiny",
        "method": "full",
        "dtype": "bf16",
        "gc": False,
        "mbs": 1,
        "ga": 2,
        "seq": 64,
        "kernels": "chunked",
        "compile": True,
        "lengths": "chat",
    },
    {"id": "tiny-lora", "model": "tiny", "method": "lora", "dtype": "bf16", "gc": False, "mbs": 1, "seq": 64},
]
"""A trial of the script on a CPU."""
TINY_MODEL: Final = {
    "vocab_size": 1024, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("measure", "compare"))
    parser.add_argument("path", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--seconds", type=float, default=280.0, help="start nothing after so long")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--no-pieces", action="store_true")
    parser.add_argument("--kernels", action="store_true", help="name the kernels that took longest, too")
    options = parser.parse_args()
    if options.command == "compare":
        from kernel_compare import compare

        return compare(options.path, kernels=options.kernels)
    return measured(options)


def measured(options: Any) -> int:
    """Pieces first: they take a known time, and configurations fill the rest. What is there already is left as it is."""
    began = time.monotonic()
    options.path.mkdir(parents=True, exist_ok=True)
    measure.DEVICE = options.device  # type: ignore[misc]
    measure.import_all()
    done = {row["id"] for out in options.path.glob("*.jsonl") for row in measure_rows(out)}
    if not options.no_pieces and "pieces" not in done:
        from kernel_pieces import pieces

        in_a_child({"id": "pieces"}, options.path / "pieces.jsonl", lambda: pieces(options.device))
    for row in CONFIGURATIONS if options.device == "cuda" else TINY:
        if re.search(options.only, row["id"]) and row["id"] not in done:
            if time.monotonic() - began > options.seconds:
                print("out of time: the rest was not measured", flush=True)
                break
            in_a_child(row, options.path / "steps.jsonl", lambda row=row: taken(row, options))  # type: ignore[misc]
    return 0


def measure_rows(out: Path) -> list[dict[str, Any]]:
    return [row for row in map(json.loads, out.read_text().splitlines()) if "error" not in row]


def in_a_child(row: dict[str, Any], out: Path, work: Callable[[], dict[str, Any]]) -> None:
    """A process of its own, so that a failure or a lack of memory costs one row."""
    began = time.monotonic()
    sys.stdout.flush()
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        found = row | work()
    except BaseException as error:
        found = row | {"error": f"{type(error).__name__}: {error}"[:400]}
        traceback.print_exc()
    found["took_s"] = round(time.monotonic() - began, 1)
    with out.open("a") as file:
        file.write(json.dumps(found) + "\n")
    print(shown(found), flush=True)
    sys.stderr.flush()
    os._exit(0)


def taken(row: dict[str, Any], options: Any) -> dict[str, Any]:
    """All that is measured of one configuration."""
    import torch

    torch.manual_seed(0)
    settling = row.get("settling", SETTLING)
    given = row | {"steps": settling + TIMED + 1 + WAITED_FOR}
    trainer, watch = watched(given, settling, options)
    trainer.train()
    found = watch.found() | {"compilations": watch.compilations, "gpu": watch.gpu, "versions": measure.versions()}
    if not row.get("compile") and not row.get(
        "packing"
    ):  # a compiled block would be compiled again for the shorter row
        found["short_s"] = short(trainer, watch)
    return found


def watched(row: dict[str, Any], settling: int, options: Any) -> tuple[Any, Any]:
    """(trainer, what its hooks note down)"""
    import torch
    from kernel_watch import Watch

    if options.device == "cpu":
        from transformers import AutoConfig

        measure.make_config = lambda _: AutoConfig.for_model("llama", **TINY_MODEL)  # type: ignore[assignment]
        torch.cuda.synchronize = lambda *_: None  # type: ignore[assignment]
    trainer, _, _ = measure.build(row)
    watch = Watch(options.device, options.path / f"{row['id']}.trace.json", settling, TIMED)
    watch.over(trainer)
    return trainer, watch


def short(trainer: Any, watch: Any) -> dict[str, float]:
    """Host seconds of a micro-step's phases, as the Trainer runs them, over a row whose kernels take nothing; the fastest
    of several: what else a machine does can only add. ``unbroken``: both in one, without waiting in between."""
    import torch

    rows = torch.randint(5, 1000, (1, SHORT), device=measure.DEVICE)
    batch = {"input_ids": rows, "labels": rows.clone()}
    count = torch.tensor(SHORT, device=measure.DEVICE)
    found: dict[str, list[float]] = {"forward": [], "backward": [], "unbroken": []}
    for index in range(2 * SHORT_PASSES):
        watch.short_pass(waits=index % 2 == 0)
        began = time.perf_counter()
        trainer.training_step(trainer.model_wrapped, dict(batch), count)
        whole = time.perf_counter() - began
        if index % 2:
            found["unbroken"].append(whole)
        else:
            for phase in PHASES[:2]:
                found[phase].append(watch.host[phase][-1])
        trainer.model.zero_grad()
        watch.synchronize()
    return {
        f"{name}_{kind}": how(s[2:])
        for name, s in found.items()
        for kind, how in (("min", min), ("median", statistics.median))
    }


class Sensors:
    """The GPU's clock, power and temperature while the steps by the clock run."""

    ASKED: Final = "clocks.sm,power.draw,temperature.gpu,clocks_throttle_reasons.active"

    def __init__(self) -> None:
        command = ["nvidia-smi", "-i", "0", f"--query-gpu={self.ASKED}", "--format=csv,noheader,nounits", "-lms", "50"]
        try:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        except OSError:
            self.process = None  # type: ignore[assignment]

    def stop(self) -> dict[str, Any]:
        if self.process is None:
            return {}
        self.process.terminate()
        said, _ = self.process.communicate()
        rows = [line.split(", ") for line in said.splitlines() if line.count(", ") == 3]
        try:
            numbers = [[float(v) for v in row[:3]] for row in rows]
        except ValueError:
            return {"said": said[:200]}
        if not numbers:
            return {}
        clocks, watts, degrees = zip(*numbers, strict=True)
        return {
            "sm_mhz": [min(clocks), statistics.median(clocks), max(clocks)],
            "watts": [statistics.median(watts), max(watts)],
            "degrees": max(degrees),
            "reasons": dict(Counter(row[3] for row in rows)),
        }


def shown(found: dict[str, Any]) -> str:
    """One configuration in a few lines; of pieces, all of them."""
    if "error" in found:
        return f"{found['id']}: {found['error']} ({found['took_s']} s)"
    if found["id"] == "pieces":
        lines = [f"  {name}: " + " ".join(f"{v * 1e6:.1f}" for v in values) for name, values in found["pieces"].items()]
        return "\n".join([f"pieces, microseconds ({found['took_s']} s)", *lines])
    lines = [f"{found['id']}: step {found['step_median_s'] * 1e3:.1f} ms of {found['wall_ms']} ({found['took_s']} s)"]
    for what in ("phases_device_s", "phases_host_s", "phases_waited_s", "short_s"):
        if found.get(what):
            lines.append(f"  {what}: " + " ".join(f"{k} {v * 1e3:.2f} ms" for k, v in found[what].items()))
    for phase, kernels in found.get("phases", {}).items():
        classes = " ".join(f"{k} {v[0] * 1e3:.2f}/{v[1]}" for k, v in kernels["classes"].items())
        told = f"busy {kernels['busy_s'] * 1e3:.2f} gaps {kernels['gaps_s'] * 1e3:.2f} waits {kernels['waits_s'] * 1e3:.2f}"
        lines.append(f"  {phase}: {told} ms; ms/launches: {classes}")
    lines.append(f"  runtime calls {found.get('calls')}; compilations {found['compilations']}; gpu {found['gpu']}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
