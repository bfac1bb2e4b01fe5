"""Preparation of data: rows a second against TRL's own, memory as the rows grow, and a second start.

    python benchmarks/preparation.py [--rows 20000] [--data FILE ...] [--processes 2] [--only axoc|trl] [--tokens 2048]

Both sides get the same rows, tokenizer, template, limit and processes, in turn on the same machine: conversations of which
the last answer is learned (TRL: prompt and completion), tokenized and packed. TRL's seconds are those of
``SFTTrainer._prepare_dataset`` alone; axoc's are those of ``prepare`` in a process that has imported what it needs (reading,
checking, encoding, writing, splitting, packing), and beside them those of the whole command. Memory is the sum of the
processes' own pages, sampled.

Rows are the conversations of ``--data``, files of any format, again and again, each time with another question; without it
documentation of Python's library, cut to chat-like lengths: lognormal, ``--median`` 300 tokens, sigma 0.8. Needs a
tokenizer: ``--model`` (``make run`` fetches one).
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
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


Messages = list[dict[str, str]]


def rows(count: int, data: list[Path], median: int = 300) -> Iterator[Messages]:
    """No two are alike."""
    if not data:
        yield from stretches(count, median)
        return
    found = [turns for path in data for turns in conversations(path)]
    for index in range(count):
        first, *rest = found[index % len(found)]
        yield [{**first, "content": f"{first['content']} (case {index})"}, *rest]


def stretches(count: int, median: int) -> Iterator[Messages]:
    """Each from a place of its own of the library's text."""
    draw, text = random.Random(7), library_text()
    for index in range(count):
        size = round(median * CHARACTERS_A_TOKEN * draw.lognormvariate(0, SIGMA))
        start = draw.randrange(max(1, len(text) - size))
        answer = text[start : start + size].strip() or text[:100]
        asked = {"role": "user", "content": f"Question {index}: {answer[:60]}?"}
        yield [asked, {"role": "assistant", "content": answer}]


def conversations(path: Path) -> Iterator[Messages]:
    """Of a file, up to the last answer; calls of tools as text, as the template of the benchmark's model has no words for
    them."""
    from axoc_runtime.ingest.base import BadRow, Conversation
    from axoc_runtime.ingest.readers.json_files import Json, JsonLines
    from axoc_runtime.ingest.registry import schema_of
    from axoc_runtime.ingest.sources import Source
    from axoc_runtime.ingest.spelled import as_text

    reader = JsonLines() if path.suffix == ".jsonl" else Json()
    for record in reader.read(Source(written=path.name, path=path)):
        try:
            made = schema_of(record.row, record.place, (Conversation,)).convert(record.row)
        except BadRow:
            continue
        said = list(as_text(made.messages)) if isinstance(made, Conversation) else []
        while said and said[-1]["role"] != "assistant":
            said.pop()
        yield [{"role": m["role"], "content": m["content"]} for m in said]


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
        model__id=str(model), dataset__path="data.jsonl", dataset__max_seq_length=tokens, dataset__packing=True,
        dataset__train_on="last_turn",
    )  # fmt: skip
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


def run_alone(side: str, folder: Path, asked: argparse.Namespace) -> dict[str, float]:
    """In a process of its own, as imports and models are not what is measured."""
    command = [sys.executable, __file__, "--alone", side, str(folder), "--model", str(asked.model)]
    command += ["--tokens", str(asked.tokens), "--processes", str(asked.processes)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def axoc_only(folder: Path, model: Path, tokens: int, processes: int) -> None:
    """Prints a line of JSON: seconds, of the clock and of processors, tokens and packs."""
    from axoc_runtime import prepare
    from axoc_runtime.job import read_job
    from axoc_runtime.preparation import whole
    from transformers import AutoTokenizer

    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:processes]))
    job = read_job(axoc_job(folder, model, tokens))
    shutil.rmtree(job.output, ignore_errors=True)
    AutoTokenizer.from_pretrained(model)
    began, used = time.perf_counter(), cpu_seconds()
    prepare.run(job)
    took = {"seconds": time.perf_counter() - began, "cpu_seconds": cpu_seconds() - used}
    report = whole.read_report(prepare.prepared_folder(job))
    tokens_made = sum(d["tokens"] for d in report["datasets"])
    print(json.dumps(took | {"packs": report["train_packs"] + report["held_out_packs"], "tokens": tokens_made}))


def trl_only(folder: Path, model: Path, tokens: int, processes: int) -> None:
    """The same of TRL."""
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
    two = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    warm = datasets.Dataset.from_list([_conversation(two)] * 2)
    trainer = SFTTrainer(tiny, args=arguments, train_dataset=warm, processing_class=tokenizer)
    source = datasets.load_dataset("json", data_files=str(folder / "trl.jsonl"), split="train", cache_dir=str(folder))
    began, used = time.perf_counter(), cpu_seconds()
    made = trainer._prepare_dataset(source, tokenizer, arguments, True, None, "train")
    took = {"seconds": time.perf_counter() - began, "cpu_seconds": cpu_seconds() - used}
    print(json.dumps(took | {"packs": len(made), "tokens": sum(map(len, made["input_ids"]))}))


def _conversation(turns: Messages) -> dict[str, Messages]:
    return {"prompt": turns[:-1], "completion": turns[-1:]}


def write(folder: Path, asked: argparse.Namespace) -> None:
    with (folder / "data.jsonl").open("w") as ours, (folder / "trl.jsonl").open("w") as theirs:
        for row in rows(asked.rows, asked.data, asked.median):
            ours.write(json.dumps({"messages": row}) + "\n")
            theirs.write(json.dumps(_conversation(row)) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20000)
    parser.add_argument("--data", type=Path, nargs="*", default=[])
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--median", type=int, default=300, help="tokens of a row")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--model", type=Path, default=ROOT / "models/SmolLM2-135M-Instruct")
    parser.add_argument("--only", choices=("axoc", "trl"))
    parser.add_argument("--alone", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.alone is not None:
        one = {"axoc": axoc_only, "TRL": trl_only}[asked.alone[0]]
        one(Path(asked.alone[1]), asked.model, asked.tokens, asked.processes)
        return
    with tempfile.TemporaryDirectory() as made:
        measured = measure(Path(made), asked)
    report(measured, asked.rows)


def measure(folder: Path, asked: argparse.Namespace) -> dict[str, Took]:
    write(folder, asked)
    measured: dict[str, Took] = {}
    if asked.only != "trl":
        measured["axoc's whole command"] = run_axoc(folder, asked.model, asked.tokens, asked.processes)
        for start in ("second", "third"):
            again = run_axoc(folder, asked.model, asked.tokens, asked.processes)
            print(f"axoc: {start} start {again.seconds:.2f} s", flush=True)
    for side in [side for side in ("axoc", "TRL") if asked.only in (None, side.lower())]:
        found = run_alone(side, folder, asked)
        print(f"{side}: {found.pop('packs'):,.0f} packs, {found.pop('tokens'):,.0f} tokens", flush=True)
        measured[side] = Took(**found)
    return measured


def report(measured: dict[str, Took], count: int) -> None:
    for name, took in measured.items():
        peak = f", {took.peak_bytes / 2**20:,.0f} MiB at its peak" if took.peak_bytes else ""
        told = f"{took.seconds:.1f} s, {took.cpu_seconds:.1f} s of processors, {count / took.seconds:,.0f} rows/s"
        print(f"{name}: {told}{peak}")
    theirs = measured.get("TRL")
    for name, ours in measured.items():
        if theirs is not None and ours is not theirs:
            by_clock, by_work = theirs.seconds / ours.seconds, theirs.cpu_seconds / ours.cpu_seconds
            print(f"{name}: {by_clock:.2f} times the rows a second of TRL; by processors' time {by_work:.2f}")


if __name__ == "__main__":
    main()
