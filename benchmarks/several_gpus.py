"""Every strategy on several GPUs of one machine: predicted against measured memory and step time, and the plan among them.

    python benchmarks/several_gpus.py plan FOLDER [--inventory h200-sxm-141gb:2]   # where axoc is installed
    python benchmarks/several_gpus.py run FOLDER OUT.jsonl [--seconds 540]         # on the GPUs
    python benchmarks/several_gpus.py report OUT.jsonl [--markdown FILE]

``plan`` writes a bundle a configuration: of each job the plan as it comes, and the plan with a strategy, a degree or a
setting given, the rest chosen. ``run`` makes random weights of the published shapes, then trains each bundle's job for
a few steps through the runtime's own ``prepare`` and ``train``, one process a GPU, forked after the imports as
measure.py does. What is measured: of the fullest rank the peaks of the whole run, loading included, and what the driver
reports used; the median step; and of one more step under torch's profiler the seconds that rank 0's device spent in
collectives while it computed nothing: exposed communication. Saving is part of the run where a job says so.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
os.environ.setdefault("NCCL_NVLS_ENABLE", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
HERE: Final = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "gpu_runtime")]

JOBS: Final[dict[str, dict[str, Any]]] = {
    "1b-full": {"model": "llama-3.2-1b", "batch": 32, "evaluates": True},
    "3b-full": {"model": "llama-3.2-3b", "batch": 16},
    "8b-lora": {"model": "llama-3-8b", "batch": 16, "adapter": True},
    "8b-full": {"model": "llama-3-8b", "batch": 8},
}
VARIANTS: Final[dict[str, dict[str, Any]]] = {
    "plan": {},
    "ddp": {"distributed": {"type": "ddp"}},
    "fsdp": {"distributed": {"type": "fsdp"}},
    "zero1": {"distributed": {"type": "zero1"}},
    "zero2": {"distributed": {"type": "zero2"}},
    "zero3": {"distributed": {"type": "zero3"}},
    "tp2": {"distributed": {"model_parallel_size": 2}},
    "fsdp-full": {"distributed": {"type": "fsdp"}, "training": {"gradient_checkpointing": "full"}},
    "ddp-small": {"distributed": {"type": "ddp"}, "training": {"micro_batch_size": 2}},
    "fsdp-plain": {"distributed": {"type": "fsdp"}, "model": {"kernels": "none"}},
}
LEFT_OUT: Final = {("8b-lora", "fsdp-full"), ("8b-lora", "fsdp-plain")}
LONGEST: Final = 2048
PLANNED_STEPS: Final = 10_000
STEPS: Final = 8
PATIENCE_SECONDS: Final = 100
KEPT: Final = ("peak_allocated_bytes", "peak_reserved_bytes", "device_used_bytes", "step_seconds", "tokens_per_second")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    planned = commands.add_parser("plan")
    planned.add_argument("folder", type=Path)
    planned.add_argument("--inventory", default="h200-sxm-141gb:2")
    running = commands.add_parser("run")
    running.add_argument("folder", type=Path)
    running.add_argument("rows", type=Path)
    running.add_argument("--seconds", type=float, default=540.0, help="start no configuration after so long")
    shown = commands.add_parser("report")
    shown.add_argument("rows", type=Path)
    shown.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    if options.command == "plan":
        return plan(options.folder, options.inventory)
    if options.command == "run":
        return run(options.folder.resolve(), options.rows.resolve(), options.seconds)
    from several_gpus_report import reported

    text = reported(read(options.rows))
    print(text)
    if options.markdown:
        options.markdown.write_text(text + "\n", encoding="utf-8")
    return 0


# --- what is planned


def plan(folder: Path, inventory: str) -> int:
    """FOLDER/JOB/: config.json, VARIANT.yaml (JSON is YAML), VARIANT/ the bundle."""
    from measure import CATALOG

    for job, wanted in JOBS.items():
        place = folder / job
        place.mkdir(parents=True, exist_ok=True)
        config = json.loads((CATALOG / f"{wanted['model']}.json").read_text())["config"]
        (place / "config.json").write_text(json.dumps(config))
        for name, given in VARIANTS.items():
            (place / f"{name}.yaml").write_text(json.dumps(spec(job, name, given), indent=1))
            command = [sys.executable, "-m", "axoc", "plan", f"{name}.yaml", "--inventory", inventory, "--out", name]
            done = subprocess.run(command, cwd=place, check=False, capture_output=True, text=True)
            print(f"{job} {name}: {'planned' if done.returncode == 0 else 'no plan: ' + last_line(done)}", flush=True)
    return 0


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    return (done.stderr or done.stdout).strip().splitlines()[0]


def spec(job: str, name: str, given: dict[str, Any]) -> dict[str, Any]:
    wanted = JOBS[job]
    training = {"global_batch_size": wanted["batch"], "max_steps": PLANNED_STEPS, "save_steps": PLANNED_STEPS}
    training |= {"logging_steps": 4, "eval_steps": PLANNED_STEPS, "learning_rate": 1e-5}
    return {
        "version": 1, "name": name, "output_dir": f"out-{name}", "tracking": [],
        "model": {"id": "gpu-model", "config": "config.json", "compile": False} | given.get("model", {}),
        "adapter": "lora" if wanted.get("adapter") else "none",
        "dataset": {
            "path": "data.jsonl", "max_seq_length": LONGEST, "packing": False,
            "validation_split": 0.06 if wanted.get("evaluates") else 0.0,
        },
        "training": training | given.get("training", {}), "distributed": given.get("distributed", {}),
    }  # fmt: skip


# --- what is run


def run(folder: Path, rows: Path, seconds: float) -> int:
    import torch
    from measure import import_all

    began = time.monotonic()
    import_all()
    import_runtime()
    assert not torch.cuda.is_initialized(), "a forked process could not use the GPUs"
    make_models(folder)
    print(f"imports and weights: {time.monotonic() - began:.0f} s", flush=True)
    known = {(r["job"], r["variant"]) for r in read(rows) if "error" not in r}
    wanted = [one for one in distinct(folder) if one not in known]
    for number, (job, name) in enumerate(wanted):
        if time.monotonic() - began > seconds:
            print(f"out of time: {len(wanted) - number} were not measured", flush=True)
            break
        started = time.monotonic()
        row = measured(folder / job, name, JOBS[job], 29600 + number)
        same = [
            n
            for n in VARIANTS
            if what_runs(folder / job / name / "job.json") == path_runs(folder / job / n / "job.json")
        ]
        with rows.open("a") as out:
            out.write(json.dumps({"job": job, "variant": name, "also": same[1:]} | row) + "\n")
        found = (
            row.get("error")
            or f"{row['measured']['step_seconds']:.4f} s, {row['predicted']['step_seconds']:.4f} predicted"
        )
        print(f"{job} {name}: {found}; {time.monotonic() - started:.0f} s", flush=True)
        shutil.rmtree(folder / job / f"out-{name}", ignore_errors=True)
    return 0


def read(rows: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in rows.read_text().splitlines()] if rows.exists() else []


def distinct(folder: Path) -> list[tuple[str, str]]:
    """(job, variant): each strategy of every job first. One that came out as another of its job is not run again."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for name in VARIANTS:
        for job in JOBS:
            path = folder / job / name / "job.json"
            if path.exists() and (job, name) not in LEFT_OUT:
                found.setdefault((job, what_runs(path)), (job, name))
    return list(found.values())


def what_runs(path: Path) -> str:
    """All that a job file says, without names and places."""
    values = json.loads(path.read_text())
    return json.dumps([values[key] for key in ("model", "adapter", "training", "distributed")], sort_keys=True)


def path_runs(path: Path) -> str:
    return what_runs(path) if path.exists() else ""


def import_runtime() -> None:
    """What each forked process would spend its time on; none of it touches a GPU."""
    from measure import gpu_unasked

    with gpu_unasked():
        for name in (
            "datasets",
            "peft",
            "liger_kernel.transformers",
            "deepspeed",
            "axoc_runtime.train",
            "axoc_runtime.prepare",
        ):
            with contextlib.suppress(ImportError):
                __import__(name)


def make_models(folder: Path) -> None:
    """Each in a process of its own, spread over the GPUs."""
    import make_model
    from measure import gpus

    (_, count), children = gpus(), []
    for number, job in enumerate(sorted(JOBS, key=lambda j: len(j))):
        place = folder / job
        if not (place / "config.json").exists() or (place / "gpu-model" / "config.json").exists():
            continue
        child = os.fork()
        if child == 0:
            os.environ["CUDA_VISIBLE_DEVICES"] = str(number % max(count, 1))
            os.chdir(place)
            code = 1
            with contextlib.suppress(BaseException):
                make_model.make_weights("gpu-model")
                make_model.make_tokenizer("gpu-model")
                make_model.make_rows("data.jsonl")
                code = 0
            os._exit(code)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


def measured(place: Path, name: str, wanted: dict[str, Any], port: int) -> dict[str, Any]:
    job_json = json.loads((place / name / "job.json").read_text())
    ranks, children = int(job_json["distributed"]["world_size"]), {}
    for rank in range(ranks):
        child = os.fork()
        if child == 0:
            _rank(place, name, wanted, {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_PORT": port})
        children[child] = rank
    failed = waited(children)
    result = place / f"out-{name}" / "measured.json"
    if failed or not result.exists():
        path = place / f"error-{name}.txt"
        return {"error": path.read_text() if path.exists() else failed or "no metrics"}
    return json.loads(result.read_text())  # type: ignore[no-any-return]


def waited(children: dict[int, int]) -> str:
    """Until all have ended; the first that fails, or too long a wait, ends the others."""
    deadline, failed = time.monotonic() + PATIENCE_SECONDS, ""
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid in children:
            rank = children.pop(pid)
            if status and not failed:
                failed, deadline = f"rank {rank} ended with {os.waitstatus_to_exitcode(status)}", time.monotonic() + 5
        elif time.monotonic() > deadline:
            failed = failed or "ran out of patience"
            for child in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            deadline = time.monotonic() + 30
        else:
            time.sleep(0.05)
    return failed


def _rank(place: Path, name: str, wanted: dict[str, Any], numbers: dict[str, int]) -> None:
    """Of a forked process: trains, and never returns."""
    code = 1
    os.environ.update({key: str(value) for key, value in numbers.items()})
    os.environ |= {
        "LOCAL_WORLD_SIZE": os.environ["WORLD_SIZE"],
        "MASTER_ADDR": "127.0.0.1",
        "AXOC_BASE_DIR": str(place),
    }
    os.environ["OMP_NUM_THREADS"] = "8"
    with Path(place / f"log-{name}-{numbers['RANK']}.txt").open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            _train(place, name, wanted, numbers["RANK"])
            code = 0
        except BaseException as error:
            traceback.print_exc()
            text = f"{type(error).__name__}: {str(error)[:300]}"
            with contextlib.suppress(OSError):
                (place / f"error-{name}.txt").write_text(text)
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _train(place: Path, name: str, wanted: dict[str, Any], rank: int) -> None:
    import dataclasses

    import torch
    from axoc_runtime import prepare, train
    from axoc_runtime.callbacks import plugins
    from axoc_runtime.checkpoint import save, trainer
    from axoc_runtime.job import read_job

    job = read_job(place / name / "job.json")
    job = dataclasses.replace(job, training=dataclasses.replace(job.training, max_steps=STEPS + 1))
    torch.cuda.set_device(rank)
    ready = place / f"ready-{name}"
    if rank == 0:
        prepare.run(job)
        ready.touch()
    while not ready.exists():
        time.sleep(0.05)
    watched = exposed()
    plugins.own_callbacks = lambda: [watched]
    if not wanted.get("evaluates"):  # a Trainer saves after the last step, whatever its save_steps
        save.save_trained = lambda *_: None
        trainer.Resumable._save_checkpoint = lambda *_: None
    train.run(job, fresh=True)
    if rank == 0:
        metrics = json.loads((job.output / "metrics.json").read_text())
        given = job.to_dict()
        chosen = {
            key: given["training"][key]
            for key in ("micro_batch_size", "gradient_accumulation_steps", "gradient_checkpointing")
        }
        chosen |= {
            "strategy": job.distributed.strategy,
            "tensor_parallel": job.distributed.tensor_parallel,
            "kernels": job.model.kernels,
        }
        if job.adapter:
            chosen |= {key: getattr(job.adapter, key) for key in ("casts_inputs", "scales_between")}
        row = {"plan": chosen, "measured": {key: metrics[key] for key in KEPT}, "predicted": metrics["predicted"]}
        row |= {"profiled": watched.found, "gpu": torch.cuda.get_device_name(), "asserted": metrics["asserted"]}
        (job.output / "measured.json").write_text(json.dumps(row | {"versions": metrics["versions"]}))


def exposed() -> Any:
    """A callback that profiles the last step."""
    import torch
    from transformers import TrainerCallback

    class Exposed(TrainerCallback):
        def __init__(self) -> None:
            self.found: dict[str, float] = {}
            self.profiler: Any = None

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == STEPS:
                torch.cuda.synchronize()
                self.profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
                self.profiler.__enter__()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if self.profiler is not None:
                torch.cuda.synchronize()
                self.profiler.__exit__(None, None, None)
                self.found = communication(self.profiler)
                self.profiler = None

    return Exposed()


def communication(profiler: Any) -> dict[str, float]:
    """Seconds of collectives, of those while nothing else ran, and of other kernels."""
    spans: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
    for event in profiler.profiler.kineto_results.events():
        if str(event.device_type()).endswith("CUDA") and event.duration_ns():
            began = event.start_ns()
            spans["nccl" in event.name().lower()].append((began, began + event.duration_ns()))
    sent, computed = union(spans[True]), union(spans[False])
    return {
        "communication_seconds": length(sent) / 1e9,
        "exposed_seconds": (length(union(sent + computed)) - length(computed)) / 1e9,
        "compute_seconds": length(computed) / 1e9,
    }


def union(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    made: list[tuple[int, int]] = []
    for begin, end in sorted(spans):
        if made and begin <= made[-1][1]:
            made[-1] = (made[-1][0], max(made[-1][1], end))
        else:
            made.append((begin, end))
    return made


def length(spans: list[tuple[int, int]]) -> int:
    return sum(end - begin for begin, end in spans)


if __name__ == "__main__":
    sys.exit(main())
