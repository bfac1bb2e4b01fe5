"""The same work by axoc, by TRL as it comes and by TRL tuned by hand: real (non-padding) tokens a second, and loss curves.

    python benchmarks/throughput.py plan FOLDER [--inventory h100-sxm-80gb]     # where axoc is installed: a bundle a job
    python benchmarks/throughput.py run FOLDER OUT.jsonl --job 1b-full --only axoc|trl|tuned|wrapped|flash [--seconds 45]
    python benchmarks/throughput.py sequence FOLDER OUT.jsonl --runs 1b-full:axoc,1b-full:tuned [--budget 540]
    python benchmarks/throughput.py table OUT.jsonl [--plot OUT.svg]            # of what has been measured; loss by tokens

Published shapes, random weights drawn alike, chat-like rows (lognormal, median 300 tokens, sigma 0.8, at most 2,048), of which
every token is learned; about 16,000 real tokens an optimizer step in all of them, and in axoc, TRL tuned and ``flash`` the
same packs in the same order, under the same seed of adapters and shuffling: their losses differ by arithmetic alone.
axoc runs the bundle's job through the runtime's own `prepare` and `train`, with the weights drawn in the place of a file's.
TRL as it comes: SFTTrainer and a model by its defaults, longest row 2,048, gradients accumulated to the same step. TRL
tuned: packed (best fit), Liger, weights in bfloat16, fused optimizer, no recomputation where it fits, loader processes;
--micro and --gc try other micro-batches.
``wrapped`` is that with rows cut from one long text: no mask, so faster, but documents are cut and read across their ends.
``flash`` is TRL tuned with flash attention 4 (flash-attn-4 is to be installed), whose packed rows need no mask either.
Rates are of the steps after the fifth; what comes before (compilation, caches) is not in them. ``sequence`` makes its runs one
after the other, each in a process of its own that is forked after the imports, and starts none once its budget is spent.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.insert(0, str(Path(__file__).resolve().parent))

import throughput_parts as parts

PARTS: Final = ("axoc", "trl", "tuned", "wrapped", "flash")
PACKED: Final = ("tuned", "flash")
"""Of TRL: whole documents in packs."""
ENOUGH_STEPS: Final = 100_000
LORA: Final = {"type": "lora", "rank": 16, "alpha": 32}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    planned = commands.add_parser("plan")
    planned.add_argument("folder", type=Path)
    planned.add_argument("--inventory", default="h100-sxm-80gb")
    planned.add_argument("--job", choices=parts.JOBS, action="append")
    running = commands.add_parser("run")
    running.add_argument("folder", type=Path)
    running.add_argument("rows", type=Path)
    running.add_argument("--job", choices=parts.JOBS, required=True)
    running.add_argument("--only", choices=PARTS, required=True)
    running.add_argument("--seconds", type=float, default=45.0, help="of measured steps")
    running.add_argument("--device", default="cuda")
    running.add_argument("--micro", type=int, help="of TRL tuned: packs at a time")
    running.add_argument("--gc", type=int, choices=(0, 1), help="of TRL tuned: recompute")
    running.add_argument("--seed", type=int, default=0, help="of weights and rows")
    several = commands.add_parser("sequence")
    several.add_argument("folder", type=Path)
    several.add_argument("rows", type=Path)
    several.add_argument("--runs", required=True, help="job:part[:micro[:gc[:seed]]], comma between them")
    several.add_argument("--seconds", type=float, default=15.0)
    several.add_argument("--budget", type=float, default=540.0, help="seconds after which no run is started")
    several.add_argument("--device", default="cuda")
    shown = commands.add_parser("table")
    shown.add_argument("rows", type=Path)
    shown.add_argument("--plot", type=Path, help="loss curves over tokens, as SVG")
    options = parser.parse_args()
    if options.command == "plan":
        return plan(options.folder, options.inventory, options.job or [j for j in parts.JOBS if j != "tiny"])
    if options.command == "run":
        return run(options)
    if options.command == "sequence":
        return sequence(options)
    rows = [json.loads(line) for line in options.rows.read_text().splitlines()]
    print(table(rows))
    if options.plot:
        from throughput_plot import curves

        options.plot.write_text(curves(rows))
    return 0


def plan(folder: Path, inventory: str, jobs: list[str]) -> int:
    """A folder a job: model/, data.jsonl, spec.yaml (JSON is YAML), bundle/."""
    for job in jobs:
        parts.write_folder(job, folder / job)
        (folder / job / "spec.yaml").write_text(json.dumps(spec(job), indent=2))
        command = [sys.executable, "-m", "axoc", "plan", "spec.yaml", "--inventory", inventory, "--out", "bundle"]
        if subprocess.run(command, cwd=folder / job, check=False).returncode:
            return 1
        (folder / job / "data.jsonl").unlink()  # made anew where it runs
    return 0


def spec(job: str) -> dict[str, Any]:
    wanted, method = parts.JOBS[job], parts.JOBS[job]["method"]
    model: dict[str, Any] = {"id": "model", "config": "model/config.json"}
    if method == "qlora":
        model |= {"quantization": "nf4", "compile": True}  # over quantized weights the plan leaves it to the user
    if job == "tiny":  # a CPU's plan would take none of what is compared
        model |= {"attention": "varlen", "kernels": "chunked", "compile": True}
    return {
        "version": 1, "name": job, "model": model, "adapter": "none" if method == "full" else LORA,
        "dataset": {
            "path": "data.jsonl", "validation_split": 0.0, "max_seq_length": parts.LONGEST,
            "mean_tokens": float(parts.lengths().mean()),
            "packing": True if job == "tiny" else "auto",
        },
        "training": {
            "objective": "pretrain", "max_steps": ENOUGH_STEPS, "global_batch_size": parts.packs(job),
            "learning_rate": wanted["learning_rate"], "lr_scheduler": "constant", "warmup_ratio": 0.0,
            "logging_steps": parts.EVERY, "save_steps": ENOUGH_STEPS,
            "bf16_update": wanted.get("bf16_update", "nearest"),
        },
        "distributed": {"mixed_precision": wanted.get("mixed_precision", "bf16")},
        "tracking": [],
    }  # fmt: skip


def run(options: argparse.Namespace) -> int:
    parts.SEED = options.seed
    made = run_axoc(options) if options.only == "axoc" else run_trl(options)
    row = {"job": options.job, "part": options.only, "seed": options.seed, **made}
    with options.rows.open("a") as out:
        out.write(json.dumps(row) + "\n")
    print(table([row]), flush=True)
    return 0


def sequence(options: argparse.Namespace) -> int:
    import datasets  # noqa: F401
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401

    # the Trainer is imported by each: with it comes what looks at the GPU
    assert not torch.cuda.is_initialized(), "a forked process could not use the GPU"
    began = time.monotonic()
    for wanted in options.runs.split(","):
        job, part, micro, gc, seed = [*wanted.split(":"), "", "", ""][:5]
        if time.monotonic() - began > options.budget:
            print(f"out of time: {wanted} was not measured", flush=True)
            continue
        own = {"job": job, "only": part, "seed": int(seed or 0)}
        own |= {"micro": int(micro) if micro else None, "gc": int(gc) if gc else None}
        started, child = time.monotonic(), os.fork()
        if child == 0:
            _one_of_several(argparse.Namespace(**(vars(options) | own)))
        os.waitpid(child, 0)
        print(f"{wanted}: {time.monotonic() - started:.0f} s", flush=True)
    if options.rows.exists():
        print(table([json.loads(line) for line in options.rows.read_text().splitlines()]), flush=True)
    return 0


def _one_of_several(options: argparse.Namespace) -> None:
    try:
        run(options)
    except BaseException as error:
        traceback.print_exc()
        print(f"{options.job}:{options.only} failed: {type(error).__name__}: {str(error)[:300]}", flush=True)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def run_axoc(options: argparse.Namespace) -> dict[str, Any]:
    """The bundle's job, in this process."""
    from axoc_runtime import prepare, train
    from axoc_runtime.attention import implementation_of
    from axoc_runtime.callbacks import plugins
    from axoc_runtime.job import Job, read_job
    from axoc_runtime.models import load

    folder = options.folder / options.job
    parts.write_folder(options.job, folder)
    job = read_job(folder / "bundle" / "job.json")
    prepare.run(job)
    meter, build = parts.Meter(options.seconds, options.device), train.build

    def drawn(job: Job, device: Any) -> Any:
        made = {"dtype": job.model.dtype, "attention": implementation_of(job), "device": options.device}
        return parts.make_model(options.job, **made)

    def watched(*args: Any, **more: Any) -> Any:
        made = build(*args, **more)
        meter.trainer = made[0]
        return made

    load.load_base, train.build = drawn, watched
    plugins.own_callbacks = lambda: [meter.callback()]
    train.run(job, fresh=True)
    metrics = json.loads((job.output / "metrics.json").read_text())
    chosen = {
        "model": job.to_dict()["model"],
        "packing": job.datasets[0].packing,
        "training": job.to_dict()["training"],
    }
    kept = (
        "predicted",
        "comparison",
        "input_wait_share",
        "peak_allocated_bytes",
        "peak_reserved_bytes",
        "device_used_bytes",
    )
    return meter.measured(options.job) | {"plan": chosen} | {key: metrics.get(key) for key in kept}


def run_trl(options: argparse.Namespace) -> dict[str, Any]:
    """SFTTrainer on rows that are tokens already: its own preparation is not in the rate."""
    import torch
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    wanted, tuned = parts.JOBS[options.job], options.only != "trl"
    own = (
        tuned_arguments(options, wanted)
        if tuned
        else {"gradient_accumulation_steps": max(1, 5 * parts.packs(options.job) // 8)}
    )
    dtype = "bfloat16" if tuned or wanted["method"] == "qlora" else "float32"
    attention = "flash_attention_4" if options.only == "flash" else "sdpa"
    model = parts.make_model(options.job, dtype=dtype, attention=attention, device=options.device)
    config = SFTConfig(
        output_dir=str(options.folder / "trl"), max_steps=ENOUGH_STEPS, max_length=parts.LONGEST,
        learning_rate=wanted["learning_rate"], lr_scheduler_type="constant", report_to="none",
        logging_steps=parts.EVERY, logging_first_step=True,  # as the runtime logs
        save_strategy="no", disable_tqdm=True, use_cpu=options.device == "cpu", bf16=options.device == "cuda", **own,
    )  # fmt: skip
    meter = parts.Meter(options.seconds, options.device, every=parts.EVERY if tuned else 1)

    class Counting(SFTTrainer):
        seen: Any = 0

        @property
        def tokens_seen(self) -> float:
            return float(self.seen)

        def training_step(self, model: Any, inputs: Any, *args: Any, **more: Any) -> Any:
            mask = inputs.get("attention_mask")
            self.seen = self.seen + (inputs["input_ids"].numel() if mask is None else mask.sum())
            return super().training_step(model, inputs, *args, **more)

    from transformers import AutoTokenizer

    parts.write_folder(options.job, options.folder / options.job)
    trainer = Counting(
        model=model, args=config, train_dataset=Dataset.from_dict(rows_for_trl(options.only)),
        processing_class=AutoTokenizer.from_pretrained(options.folder / options.job / "model"),
        peft_config=lora_config() if wanted["method"] != "full" else None, callbacks=[meter.callback()],
    )  # fmt: skip
    meter.trainer = trainer
    trainer.train()
    plan = {"dtype": dtype, "torch": torch.__version__, **own}
    return meter.measured(options.job) | {"plan": plan}


def rows_for_trl(part: str) -> dict[str, Any]:
    """Columns. Packed documents as axoc has them; those that are cut, or padded, as TRL takes them."""
    return parts.packed_rows() if part in PACKED else {"input_ids": parts.token_rows()}


def tuned_arguments(options: argparse.Namespace, wanted: dict[str, Any]) -> dict[str, Any]:
    micro = options.micro or wanted["tuned"]["micro"]
    recompute = wanted["tuned"]["gc"] if options.gc is None else bool(options.gc)
    return {
        "packing": True, "packing_strategy": "wrapped" if options.only == "wrapped" else "bfd",
        "dataset_kwargs": {"skip_prepare_dataset": options.only in PACKED}, "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": max(1, parts.packs(options.job) // micro), "optim": "adamw_torch_fused",
        "use_liger_kernel": options.device == "cuda", "gradient_checkpointing": recompute,
        "dataloader_num_workers": 2, "dataloader_pin_memory": options.device == "cuda",
    }  # fmt: skip


def lora_config() -> Any:
    from peft import LoraConfig

    return LoraConfig(r=LORA["rank"], lora_alpha=LORA["alpha"], target_modules="all-linear", task_type="CAUSAL_LM")


def table(rows: list[dict[str, Any]]) -> str:
    """Of each job the three parts, and how many times TRL's rate axoc's is."""
    lines = [f"{'job':10} {'part':7} {'tokens/s':>10} {'MFU':>6} {'tokens/step':>12} {'GiB':>6} {'loss':>7}  times"]
    for job in dict.fromkeys(row["job"] for row in rows):
        ranked = sorted((row for row in rows if row["job"] == job), key=lambda row: row["tokens_per_second"])
        of_job = {row["part"]: row for row in ranked}  # of several of one part the fastest
        for part in (p for p in PARTS if p in of_job):
            row, axoc = of_job[part], of_job.get("axoc")
            times = f"{axoc['tokens_per_second'] / row['tokens_per_second']:.2f}" if axoc and part != "axoc" else ""
            loss = row["losses"][-1][1] if row["losses"] else float("nan")
            used = (row.get("device_used_bytes") or 0) / 2**30
            lines.append(
                f"{job:10} {part:7} {row['tokens_per_second']:10,.0f} {row['mfu']:6.1%} {row['tokens_per_step']:12,.0f} "
                f"{used:6.1f} {loss:7.4f}  {times}"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
