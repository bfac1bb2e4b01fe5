"""Preparation of data: rows a second against TRL's own, memory as the rows grow, and a second start.

    python benchmarks/preparation.py [--rows 20000] [--data ROWS.json] [--processes 2] [--only axoc|trl] [--tokens 2048] [--median 300]

Both sides get the same rows, tokenizer, template, limit and processes, in turn on the same machine: conversations of one
question and one answer, of which the answer is learned (TRL: prompt and completion), tokenized and packed. TRL's seconds
are those of ``SFTTrainer._prepare_dataset`` alone; axoc's are those of the whole command ``prepare``: starting, reading,
checking, encoding, writing, splitting, packing. Memory is the sum of the processes' own pages (PSS), sampled.

Rows are documentation of Python's library, or those of ``--data`` (``instruction``, ``output``), cut to chat-like
lengths: lognormal, median 300 tokens, sigma 0.8. Needs a tokenizer: ``--model`` (``make run`` fetches one).
"""

from __future__ import annotations

import argparse
import inspect
import json
import pkgutil
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "runtime"), str(ROOT)]
CHARACTERS_A_TOKEN = 4.3
SIGMA = 0.8
SKIPPED = ("antigravity", "this", "idlelib", "test", "turtle", "tkinter", "lib2to3", "__")


def library_text() -> str:
    """Docstrings of modules that can be imported quietly."""
    found = []
    for module in sorted(m.name for m in pkgutil.iter_modules() if m.name in sys.stdlib_module_names):
        if module.startswith(SKIPPED):
            continue
        try:
            members = vars(import_module(module))
        except Exception:  # a module that this machine lacks something for
            continue
        found += [text for name in sorted(members) if (text := inspect.getdoc(members[name]))]
    return "\n\n".join(dict.fromkeys(found))


def rows(count: int, data: Path | None, median: int = 300) -> Iterator[dict[str, str]]:
    """Each a stretch of the text from a place of its own: no two rows are alike."""
    draw = random.Random(7)
    text = library_text()
    if data is not None:
        text = "\n\n".join(f"{r['instruction']}\n{r['output']}" for r in json.loads(data.read_text(encoding="utf-8")))
    for index in range(count):
        size = round(median * CHARACTERS_A_TOKEN * draw.lognormvariate(0, SIGMA))
        start = draw.randrange(max(1, len(text) - size))
        answer = text[start : start + size].strip() or text[:100]
        yield {"instruction": f"Question {index}: {answer[:60]}?", "output": answer}


class Peak:
    """Bytes of a process and all that it starts, their shared pages divided among them."""

    def __init__(self, process: subprocess.Popen[Any]) -> None:
        self.process, self.bytes = process, 0
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self) -> None:
        import psutil

        while self.process.poll() is None:
            try:
                root = psutil.Process(self.process.pid)
                sizes = [_pss(p) for p in (root, *root.children(recursive=True))]
            except psutil.Error:
                return
            self.bytes = max(self.bytes, sum(sizes))
            time.sleep(0.2)


def _pss(process: Any) -> int:
    """Pages of mapped files are left out: the kernel takes them back when it needs them."""
    import psutil

    try:
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except (OSError, psutil.Error):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss_Anon:"))


def axoc_job(folder: Path, model: Path, tokens: int) -> Path:
    from runtime.jobs import job_value

    value = job_value(
        model__id=str(model), dataset__path="data.jsonl", dataset__max_seq_length=tokens, dataset__packing=True
    )
    path = folder / "job.json"
    path.write_text(json.dumps(value))
    return path


class Took(NamedTuple):
    seconds: float
    cpu_seconds: float
    """Of all processes together: what other work on the machine changes little."""
    peak_bytes: int = 0


def cpu_seconds() -> float:
    """Of this process and all that it has waited for."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in both)


def run_axoc(folder: Path, model: Path, tokens: int, processes: int) -> Took:
    """The command, from its start to its end."""
    command = [sys.executable, "-m", "axoc_runtime", "prepare", str(axoc_job(folder, model, tokens))]
    if shutil.which("taskset"):
        command = ["taskset", "-c", ",".join(str(c) for c in range(processes)), *command]
    return _timed(command)


def _timed(command: list[str]) -> Took:
    began, used = time.perf_counter(), cpu_seconds()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    peak = Peak(process)
    out, _ = process.communicate()
    took = Took(time.perf_counter() - began, cpu_seconds() - used, peak.bytes)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}\n{out}")
    print("".join(f"    {line}\n" for line in out.splitlines()), end="", flush=True)
    return took


def run_trl(folder: Path, model: Path, tokens: int, processes: int) -> dict[str, float]:
    """In a process of its own, as its imports and models are not what is measured."""
    command = [sys.executable, __file__, "--trl-only", str(folder), "--model", str(model)]
    command += ["--tokens", str(tokens), "--processes", str(processes)]
    out = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    found: dict[str, float] = json.loads(out.splitlines()[-1])
    return found


def trl_only(folder: Path, model: Path, tokens: int, processes: int) -> None:
    """Prints a line of JSON: seconds, of the clock and of processors, and packs."""
    import datasets
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    datasets.disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(model)
    config = AutoConfig.from_pretrained(model)
    config.num_hidden_layers, config.hidden_size, config.intermediate_size = 1, 8 * config.num_attention_heads, 8
    tiny = AutoModelForCausalLM.from_config(config)
    arguments = SFTConfig(
        output_dir=str(folder / "trl"), packing=True, max_length=tokens, dataset_num_proc=processes, use_cpu=True,
        report_to="none",
    )  # fmt: skip
    warm = datasets.Dataset.from_list([_conversation({"instruction": "a", "output": "b"})] * 2)
    trainer = SFTTrainer(tiny, args=arguments, train_dataset=warm, processing_class=tokenizer)
    source = datasets.load_dataset("json", data_files=str(folder / "trl.jsonl"), split="train", cache_dir=str(folder))
    began, used = time.perf_counter(), cpu_seconds()
    made = trainer._prepare_dataset(source, tokenizer, arguments, True, None, "train")
    took = {"seconds": time.perf_counter() - began, "cpu_seconds": cpu_seconds() - used}
    print(json.dumps(took | {"packs": len(made)}))


def _conversation(row: dict[str, str]) -> dict[str, Any]:
    asked, said = {"role": "user", "content": row["instruction"]}, {"role": "assistant", "content": row["output"]}
    return {"prompt": [asked], "completion": [said]}


def write(folder: Path, asked: argparse.Namespace) -> None:
    with (folder / "data.jsonl").open("w") as ours, (folder / "trl.jsonl").open("w") as theirs:
        for row in rows(asked.rows, asked.data, asked.median):
            ours.write(json.dumps(row) + "\n")
            theirs.write(json.dumps(_conversation(row)) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20000)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--median", type=int, default=300, help="tokens of a row")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--model", type=Path, default=ROOT / "models/SmolLM2-135M-Instruct")
    parser.add_argument("--only", choices=("axoc", "trl"))
    parser.add_argument("--trl-only", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.trl_only is not None:
        trl_only(asked.trl_only, asked.model, asked.tokens, asked.processes)
        return
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write(folder, asked)
        measured: dict[str, Took] = {}
        if asked.only != "trl":
            measured["axoc"] = run_axoc(folder, asked.model, asked.tokens, asked.processes)
            for start in ("second", "third"):
                again = run_axoc(folder, asked.model, asked.tokens, asked.processes)
                print(f"axoc: {start} start {again.seconds:.2f} s", flush=True)
        if asked.only != "axoc":
            found = run_trl(folder, asked.model, asked.tokens, asked.processes)
            print(f"TRL: {found.pop('packs'):,.0f} packs", flush=True)
            measured["TRL"] = Took(**found)
    report(measured, asked.rows)


def report(measured: dict[str, Took], count: int) -> None:
    for name, took in measured.items():
        peak = f", {took.peak_bytes / 2**20:,.0f} MiB at its peak" if took.peak_bytes else ""
        told = f"{took.seconds:.1f} s, {took.cpu_seconds:.1f} s of processors, {count / took.seconds:,.0f} rows/s"
        print(f"{name}: {told}{peak}")
    if len(measured) == 2:
        ours, theirs = measured["axoc"], measured["TRL"]
        by_clock, by_work = theirs.seconds / ours.seconds, theirs.cpu_seconds / ours.cpu_seconds
        print(f"axoc prepares {by_clock:.2f} times the rows a second of TRL; by processors' time {by_work:.2f}")


if __name__ == "__main__":
    main()
