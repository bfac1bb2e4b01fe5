"""ROUGE on the held-out split: the model's greedy answers against the rows' own (Lin 2004, by the package rouge-score)."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any, Final

from axoc_runtime.generate import answers, ends_of, tokens_at_once
from axoc_runtime.ingest.encode import IGNORED
from axoc_runtime.job import Job

METRICS: Final = ("rouge1", "rouge2", "rougeL")
ROWS: Final = 64
"""Of the held-out split, drawn by the job's seed: each is generated token by token, so all would take too long."""
WORD: Final = re.compile(r"[぀-ヿ一-鿿]|[^\W_぀-ヿ一-鿿]+")
"""Letters and digits of any script; a kana or Chinese character stands alone. On ASCII these are rouge-score's own words."""


def asked(job: Job) -> list[str]:
    """Those of the job's metrics that are measured here."""
    return [name for name in job.eval_metrics if name in METRICS]


def measure(job: Job, model: Any, tokenizer: Any, held_out: Any) -> dict[str, float]:
    """Mean F-measure, 0 to 1, of each metric asked for, over the sampled rows."""
    pairs = [question_and_answer(row["input_ids"], row["labels"]) for row in sampled(held_out, job.training.seed)]
    limit, new = max(d.max_seq_length for d in job.datasets), job.samples.max_new_tokens
    ends = ends_of(model, tokenizer) | {a[-1] for _, a in pairs if a[-1] in tokenizer.all_special_ids}
    prompts = [question[-max(limit - new, 1) :] for question, _ in pairs]  # learned positions end at the rows' limit
    made = answers(model, tokenizer, prompts, max_new_tokens=new, at_once=tokens_at_once(job), ends=ends)
    # an answer that was to be cut off at so many tokens is held against as many of the row's
    wanted = [tokenizer.decode(answer[:new], skip_special_tokens=True) for _, answer in pairs]
    return scores(asked(job), wanted, [tokenizer.decode(m, skip_special_tokens=True) for m in made])


def sampled(held_out: Any, seed: int) -> list[Any]:
    """The same rows before and after training."""
    chosen = random.Random(seed).sample(range(len(held_out)), min(ROWS, len(held_out)))
    return [held_out[i] for i in sorted(chosen)]


def question_and_answer(ids: Sequence[int], labels: Sequence[int]) -> tuple[list[int], list[int]]:
    """What stands before the last answer, and the answer. A document, all of which is trained on, is continued from its
    half."""
    end = max(i for i, label in enumerate(labels) if label != IGNORED) + 1
    start = end
    while start and labels[start - 1] != IGNORED:
        start -= 1
    start = start or end // 2
    return list(ids[:start]), list(ids[start:end])


def scores(names: list[str], wanted: list[str], made: list[str]) -> dict[str, float]:
    """Mean F-measure of each."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(names, tokenizer=_Words())
    each = [scorer.score(w, m) for w, m in zip(wanted, made, strict=True)]
    return {name: sum(float(e[name].fmeasure) for e in each) / len(each) for name in names}


class _Words:
    """rouge-score's own tokenizer drops every letter that is not ASCII."""

    def tokenize(self, text: str) -> list[str]:
        return WORD.findall(text.lower())
