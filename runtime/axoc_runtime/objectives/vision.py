"""Supervised fine-tuning on conversations about images: the answers' text is learned, by the language model alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final
from weakref import WeakKeyDictionary

from axoc_runtime.ingest.base import BadRow, Example, Pictured
from axoc_runtime.ingest.encode import Rules
from axoc_runtime.job import DatasetJob, Job
from axoc_runtime.objectives.base import Row
from axoc_runtime.objectives.language import Sft, row_of

READERS: Final = 4
"""Processes that unpack and scale images ahead of a GPU: tens of milliseconds an image."""
_PROCESSORS: Final[WeakKeyDictionary[Any, Any]] = WeakKeyDictionary()


def processor_of(job: Job, tokenizer: Any) -> Any:
    """Loaded once a process. Raises RuntimeFailure."""
    if tokenizer not in _PROCESSORS:
        from axoc_runtime.models.processor import load_processor

        _PROCESSORS[tokenizer] = load_processor(job, tokenizer)
    return _PROCESSORS[tokenizer]


class Seeing(Sft):
    """What `sft` is for a job whose model sees."""

    accepts: ClassVar[tuple[type, ...]] = (Pictured,)
    wants = "conversations about images"
    columns = {"input_ids": "tokens", "labels": "tokens", "text": "text", "images": "images"}  # noqa: RUF012

    def rows_of(
        self, job: Job, dataset: DatasetJob, tokenizer: Any, examples: Sequence[Example]
    ) -> list[list[Row] | BadRow]:
        processor = processor_of(job, tokenizer)
        return [self._row(job, dataset, processor, example) for example in examples]

    def _row(self, job: Job, dataset: DatasetJob, processor: Any, example: Example) -> list[Row] | BadRow:
        from axoc_runtime.ingest.pictured import encode_pictured

        assert isinstance(example, Pictured)
        rules = Rules(
            limit=dataset.max_seq_length,
            system_prompt=dataset.system_prompt,
            truncation=dataset.truncation,
            train_on=dataset.train_on,
        )
        folder = job.resolve(dataset.path or "").parent
        try:
            seen = encode_pictured(processor, example, folder, job.base, rules)
        except BadRow as error:
            return error
        return [row_of(seen.encoded, text=seen.text, images=seen.images)]

    def arguments(self, job: Job) -> tuple[type, dict[str, Any]]:
        kind, own = super().arguments(job)
        return kind, own | ({"dataloader_num_workers": READERS} if "dataloader_num_workers" in own else {})

    def trainer(self, job: Job, **parts: Any) -> Any:
        from axoc_runtime.objectives.pictures import PictureCollator
        from axoc_runtime.objectives.sft import AxocTrainer

        processor = processor_of(job, parts["processing_class"])
        return AxocTrainer(job, data_collator=PictureCollator(processor, job.base), **parts)
