"""Supervised fine-tuning and continued pre-training: the next token of what is to be said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final, cast

from axoc_runtime.ingest.base import (
    BadRow,
    Conversation,
    Document,
    Example,
    Preference,
    Segments,
    Tokens,
)
from axoc_runtime.ingest.encode import IGNORED, Encoded, Text, encode_all
from axoc_runtime.job import DatasetJob, Job
from axoc_runtime.objectives.base import Figure, Objective, Row

READERS: Final = 2
BATCHES_AHEAD: Final = 4
"""Of each reader. A batch takes less than a millisecond; the first look at a page of a cold disk takes many."""


class Sft(Objective):
    name = "sft"
    accepts: ClassVar[tuple[type, ...]] = (Conversation, Document, Segments, Tokens, Preference)
    columns = {"input_ids": "tokens", "labels": "tokens"}  # noqa: RUF012
    as_arrays = True
    figures = (
        Figure(name="perplexity", log="eval_perplexity", title="perplexity"),
        Figure(name="eval_loss", log="eval_loss", title="loss"),
    )

    def rows(self, job: Job, dataset: DatasetJob, tokenizer: Any, example: Example) -> list[Row]:
        (found,) = self.rows_of(job, dataset, tokenizer, [example])
        if isinstance(found, BadRow):
            raise found
        return found

    def rows_of(
        self, job: Job, dataset: DatasetJob, tokenizer: Any, examples: Sequence[Example]
    ) -> list[list[Row] | BadRow]:
        found = encode_all(
            tokenizer,
            [preferred(example) if isinstance(example, Preference) else cast(Text, example) for example in examples],
            limit=dataset.max_seq_length,
            system_prompt=dataset.system_prompt,
            truncation=dataset.truncation,
            train_on=dataset.train_on,
        )
        return [made if isinstance(made, BadRow) else [row_of(encoded) for encoded in made] for made in found]

    def arguments(self, job: Job) -> tuple[type, dict[str, Any]]:
        from transformers import TrainingArguments

        skip = any(d.streaming for d in job.datasets)  # a stream knows itself where it goes on
        return TrainingArguments, {"label_names": ["labels"], "ignore_data_skip": skip} | _readers(job)

    def trainer(self, job: Job, **parts: Any) -> Any:
        from axoc_runtime.objectives.packed import PackCollator
        from axoc_runtime.objectives.planned import padding_token
        from axoc_runtime.objectives.sft import AxocTrainer, Collator
        from axoc_runtime.preparation.whole import capacity_of, is_packed

        padding, at_once = padding_token(parts["processing_class"]), job.training.micro_batch_size
        packed = PackCollator(padding, packs=at_once, capacity=capacity_of(job)) if is_packed(job) else None
        return AxocTrainer(job, data_collator=packed or Collator(padding), **parts)


def preferred(pair: Preference) -> Conversation:
    """The better answer to what was asked: what is learned of a pair where nothing is compared."""
    return Conversation(messages=(*pair.prompt.messages, pair.chosen), tools=pair.prompt.tools)


class Pretrain(Sft):
    name = "pretrain"
    accepts = (Document, Tokens)
    wants = "plain text"


def _readers(job: Job) -> dict[str, Any]:
    """Processes that read and collate ahead of a GPU. On a CPU they would take what the model computes with."""
    if job.distributed.device == "cpu":
        return {}
    return {
        "dataloader_num_workers": READERS,
        "dataloader_prefetch_factor": BATCHES_AHEAD,
        "dataloader_persistent_workers": True,
    }


def _learned(labels: list[int]) -> int:
    """The first token is never predicted."""
    first_is_learned = labels[:1] not in ([], [IGNORED])
    return len(labels) - labels.count(IGNORED) - first_is_learned


def row_of(encoded: Encoded, **more: Any) -> Row:
    """``more``: further columns."""
    return Row(
        columns={"input_ids": encoded.input_ids, "labels": encoded.labels, **more},
        length=len(encoded.input_ids),
        tokens=len(encoded.input_ids),
        trained_tokens=_learned(encoded.labels),
        highest_id=max(encoded.input_ids, default=0),
        cut=encoded.cut,
        untrained_turns=encoded.untrained_turns,
    )
