"""`finish`: after training, in one process: merge an adapter, answer the sample questions, print the result."""

from __future__ import annotations

import json
from typing import Any

from axoc_runtime.files import whole_folder, write_json
from axoc_runtime.job import Job


def run(job: Job) -> None:
    """Leaves ``final/`` (a whole model in safetensors with its tokenizer) and, where questions were set, samples.json."""
    from axoc_runtime.train import quiet

    quiet(job)
    before = _answers(job, None) if job.samples.prompts else []
    if job.adapter is not None:
        merge(job)
    if job.samples.prompts:
        _show(job, before, _answers(job, job.output / "final"))
    _report(job)


def merge(job: Job) -> None:
    """The adapter into the exact (never the quantized) base weights. Checked: merged and unmerged logits agree."""
    from dataclasses import replace

    import torch
    from peft import PeftModel

    from axoc_runtime.models.load import load_base
    from axoc_runtime.prepare import load_tokenizer

    exact = replace(job, model=replace(job.model, quantization=None, attention="sdpa"))
    base = load_base(exact, torch.device("cpu"))
    model: Any = PeftModel.from_pretrained(base, str(job.output / "adapter")).eval()
    tokenizer = load_tokenizer(job)
    probe = tokenizer("The quick brown fox", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        unmerged = model(input_ids=probe).logits.float()
        merged_model = model.merge_and_unload(safe_merge=True)
        merged = merged_model(input_ids=probe).logits.float()
    check_merge(unmerged, merged, job.model.dtype)
    merged_model.config.use_cache = True
    with whole_folder(job.output / "final") as fresh:
        merged_model.save_pretrained(fresh)
        tokenizer.save_pretrained(fresh)


MERGE_TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2, "float16": 1e-2}
"""Largest relative difference of logits: rounding of the merged weights in their dtype."""


def check_merge(unmerged: Any, merged: Any, dtype: str) -> None:
    from axoc_runtime.errors import EXIT_TRAINING, RuntimeFailure

    difference = float((unmerged - merged).norm() / unmerged.norm())
    if not difference <= MERGE_TOLERANCE[dtype]:
        message = f"the merged model's logits differ from the adapter's by {difference:.2%}"
        raise RuntimeFailure(message, EXIT_TRAINING, "keep adapter/ and load it with peft; report this model")


def _answers(job: Job, trained: Any) -> list[str]:
    """Greedy answers of the base (None) or of a folder's model."""
    import torch
    from transformers import AutoModelForCausalLM

    from axoc_runtime.models.load import DTYPES, load_base
    from axoc_runtime.prepare import load_tokenizer

    device = torch.device("cuda" if job.distributed.device == "cuda" and torch.cuda.is_available() else "cpu")
    tokenizer = load_tokenizer(job)
    if trained is None:
        model: Any = load_base(job, device)
    else:
        model = AutoModelForCausalLM.from_pretrained(trained, dtype=DTYPES[job.model.dtype])
    model = model if getattr(model, "quantization_method", None) else model.to(device)
    model.config.use_cache = True
    return [_answer(model.eval(), tokenizer, prompt, job.samples.max_new_tokens) for prompt in job.samples.prompts]


def _answer(model: Any, tokenizer: Any, prompt: str, max_new_tokens: int) -> str:
    import torch

    ids = encoded(tokenizer, prompt)
    tokens = torch.tensor([ids], device=model.device)
    with torch.no_grad():
        out = model.generate(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
        )
    return str(tokenizer.decode(out[0][len(ids) :], skip_special_tokens=True)).strip()


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
    """The figures people look for, last."""
    metrics = json.loads((job.output / "metrics.json").read_text(encoding="utf-8"))
    before, after = metrics["perplexity_before"], metrics["perplexity_after"]
    if before is not None and after is not None:
        print(f"axoc: held-out perplexity before {before:.2f}, after {after:.2f} ({after / before - 1:+.0%})")
    if metrics["step_seconds"] is None:
        print("axoc: no step was left to make in this run")
        return
    seconds, predicted = metrics["step_seconds"], metrics["predicted"]["step_seconds"]
    print(
        f"axoc: {metrics['steps']} steps, {seconds:.2f} s each (predicted {predicted:.2f}), {metrics['tokens_per_second']:,.0f} tokens/s"
    )
    print(f"axoc: model in {job.output / 'final'}, figures in {job.output / 'metrics.json'}", flush=True)
