"""What is measured by preparation.py, each in a process of its own:

    python benchmarks/preparation_sides.py axoc|unchecked|TRL|TRL-cold FOLDER MODEL TOKENS PROCESSES

``axoc``: all of `prepare` (reading, checking, encoding, writing, splitting, packing), after its imports. ``unchecked``: the same
without looking for what is wrong in the content of rows, as TRL does not. ``TRL``: ``SFTTrainer._prepare_dataset``, after its
imports and its reading of the rows. ``TRL-cold``: a trainer made of the same rows, as a script makes it. Prints a line of JSON.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from preparation_rows import asked_and_answered

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "runtime"), str(ROOT)]


def axoc_job(folder: Path, model: Path, tokens: int) -> Path:
    from runtime.jobs import job_value

    value = job_value(
        model__id=str(model), dataset__path="data.jsonl", dataset__max_seq_length=tokens, dataset__packing=True,
        dataset__train_on="last_turn",
    )  # fmt: skip
    path = folder / "job.json"
    path.write_text(json.dumps(value))
    return path


def cpu_seconds() -> float:
    """Of this process and all that it has waited for."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in both)


def axoc(folder: Path, model: Path, tokens: int, processes: int, *, checked: bool = True) -> dict[str, float]:
    from axoc_runtime import prepare
    from axoc_runtime.ingest import examine
    from axoc_runtime.job import read_job
    from axoc_runtime.preparation import whole
    from transformers import AutoTokenizer

    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:processes]))
    if not checked:
        examine.content_findings = lambda record: iter(())
        examine.speech_findings = lambda record, example, dataset: iter(())
    job = read_job(axoc_job(folder, model, tokens))
    shutil.rmtree(job.output, ignore_errors=True)
    AutoTokenizer.from_pretrained(model)
    began, used = time.perf_counter(), cpu_seconds()
    prepare.run(job)
    took = {"seconds": time.perf_counter() - began, "cpu_seconds": cpu_seconds() - used}
    report = whole.read_report(prepare.prepared_folder(job))
    made = sum(d["tokens"] for d in report["datasets"])
    return took | {"packs": report["train_packs"] + report["held_out_packs"], "tokens": made}


def trl(folder: Path, model: Path, tokens: int, processes: int, *, cold: bool = False) -> dict[str, float]:
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
    cache = str(folder / "cache")
    shutil.rmtree(cache, ignore_errors=True)
    source = datasets.load_dataset("json", data_files=str(folder / "trl.jsonl"), split="train", cache_dir=cache)
    if cold:
        made: Any = SFTTrainer(tiny, args=arguments, train_dataset=source, processing_class=tokenizer).train_dataset
        return {"packs": len(made)}
    two = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    warm = datasets.Dataset.from_list([asked_and_answered(two)] * 2)
    trainer = SFTTrainer(tiny, args=arguments, train_dataset=warm, processing_class=tokenizer)
    began, used = time.perf_counter(), cpu_seconds()
    made = trainer._prepare_dataset(source, tokenizer, arguments, True, None, "train")
    took = {"seconds": time.perf_counter() - began, "cpu_seconds": cpu_seconds() - used}
    return took | {"packs": len(made), "tokens": sum(map(len, made["input_ids"]))}


def main() -> None:
    side, folder, model, tokens, processes = sys.argv[1:]
    more = {"unchecked": {"checked": False}, "TRL-cold": {"cold": True}}.get(side, {})
    made = (trl if side.startswith("TRL") else axoc)(Path(folder), Path(model), int(tokens), int(processes), **more)
    print(json.dumps(made))


if __name__ == "__main__":
    main()
