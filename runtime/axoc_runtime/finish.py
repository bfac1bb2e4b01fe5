"""`finish`: after training, in one process: merge an adapter, answer the sample questions, measure ROUGE, print the result,
and export."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from axoc_runtime import rouge
from axoc_runtime.comparison import cells, markdown, notes
from axoc_runtime.exports import provenance
from axoc_runtime.exports.run import export
from axoc_runtime.files import write_json, write_text
from axoc_runtime.generate import answers, ends_of, load_to_answer, tokens_at_once
from axoc_runtime.job import Job


def run(job: Job) -> None:
    """Leaves ``final/`` (a whole model in safetensors with its tokenizer) and, where questions were set, samples.json."""
    from axoc_runtime.models.merge import merge
    from axoc_runtime.train import quiet

    quiet(job)
    before = _told(job, None)
    if job.adapter is not None:
        merge(job)
    after = _told(job, job.output / "final")
    if job.samples.prompts:
        _show(job, before.samples, after.samples)
    _keep_rouge(job, before, after)
    _report(job)
    provenance.keep(job)
    if job.export.formats:
        export(job.output, job.export.formats, job.export.quantization)


@dataclass(frozen=True, kw_only=True)
class Told:
    """What one model says."""

    samples: list[str]
    """Its answers to the spec's questions."""
    rouge: dict[str, float]


def _told(job: Job, trained: Path | None) -> Told:
    """Of the base (None) or of a folder's model. It is loaded only where something is asked of it."""
    from axoc_runtime.models.tokenizer import load_tokenizer
    from axoc_runtime.prepare import load_prepared

    held_out = load_prepared(job)[1] if rouge.asked(job) else None
    if not job.samples.prompts and held_out is None:
        return Told(samples=[], rouge={})
    model, tokenizer = load_to_answer(job, trained), load_tokenizer(job)
    ids = answers(
        model,
        tokenizer,
        [encoded(tokenizer, prompt) for prompt in job.samples.prompts],
        max_new_tokens=job.samples.max_new_tokens,
        at_once=tokens_at_once(job),
        ends=ends_of(model, tokenizer),
    )
    samples = [str(tokenizer.decode(i, skip_special_tokens=True)).strip() for i in ids]
    return Told(samples=samples, rouge={} if held_out is None else rouge.measure(job, model, tokenizer, held_out))


def _keep_rouge(job: Job, before: Told, after: Told) -> None:
    """Into metrics.json, beside the perplexities."""
    if not after.rouge:
        if rouge.asked(job):
            print(f"axoc: {', '.join(rouge.asked(job))}: nothing is held out to measure it on", flush=True)
        return
    path = job.output / "metrics.json"
    found = {f"{name}_before": value for name, value in before.rouge.items()}
    found |= {f"{name}_after": value for name, value in after.rouge.items()}
    write_json(path, json.loads(path.read_text(encoding="utf-8")) | found)
    for name, value in after.rouge.items():
        print(f"axoc: held-out {name} before {before.rouge[name]:.3f}, after {value:.3f}", flush=True)


def encoded(tokenizer: Any, prompt: str) -> list[int]:
    """The prompt as a user's turn, up to where the assistant begins; plain text where there is no template."""
    if not getattr(tokenizer, "chat_template", None):
        return list(tokenizer(prompt)["input_ids"])
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _show(job: Job, before: list[str], after: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = [{"prompt": p, "base": b, "trained": a} for p, b, a in zip(job.samples.prompts, before, after, strict=True)]
    write_json(job.output / "samples.json", rows)
    table = Table(title="The same question, before and after", show_lines=True)
    for title in ("question", "base model", "trained model"):
        table.add_column(title, overflow="fold", ratio=1 if title == "question" else 2)
    for row in rows:  # Text: brackets in an answer are no markup
        table.add_row(*(Text(row[name]) for name in ("prompt", "base", "trained")))
    Console().print(table)


def _report(job: Job) -> None:
    """The figures people look for, last; kept in metrics.md."""
    metrics = json.loads((job.output / "metrics.json").read_text(encoding="utf-8"))
    write_text(job.output / "metrics.md", markdown(metrics))
    _say_headline(metrics)
    if metrics["step_seconds"] is None:
        print("axoc: no step was left to make in this run")
        return
    _show_comparison(metrics)
    print(f"axoc: model in {job.output / 'final'}, figures in {job.output / 'metrics.json'}", flush=True)


def _say_headline(metrics: dict[str, Any]) -> None:
    """The objective's own figure; what cannot fall below zero also as a share."""
    name = metrics.get("headline", "perplexity")
    before, after = metrics[f"{name}_before"], metrics[f"{name}_after"]
    if before is None or after is None:
        return
    share = f" ({after / before - 1:+.0%})" if name == "perplexity" else ""
    digits = ".2f" if name == "perplexity" else ".4g"
    told = f"{name.replace('_', ' ')} before {before:{digits}}, after {after:{digits}}{share}"
    print(f"axoc: held-out {told}", flush=True)


def _show_comparison(metrics: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{metrics['steps']} steps: predicted against measured")
    table.add_column("")
    for title in ("predicted", "measured", "difference"):
        table.add_column(title, justify="right")
    for row in cells(metrics):
        table.add_row(*row)
    Console().print(table)
    for note in notes(metrics):
        print(f"axoc: {note}", flush=True)
