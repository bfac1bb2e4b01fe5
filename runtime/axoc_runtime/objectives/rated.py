"""KTO: answers that are good or bad by themselves. A pair is one of each, as TRL unpairs them."""

from __future__ import annotations

from typing import Any

from axoc_runtime.ingest.base import BadRow, Example, Preference, Rated
from axoc_runtime.job import DatasetJob, Job
from axoc_runtime.objectives.answers import answered
from axoc_runtime.objectives.base import Figure, Objective, Row


class Kto(Objective):
    name = "kto"
    accepts = (Rated, Preference)
    wants = "a prompt with an answer and its label, or with a chosen and a rejected answer"
    columns = {"prompt_ids": "tokens", "completion_ids": "tokens", "label": "flag"}  # noqa: RUF012
    figures = (
        Figure(name="reward_margin", log="eval_rewards/margins", title="reward margin"),
        Figure(name="eval_loss", log="eval_loss", title="loss"),
    )

    def rows(self, job: Job, dataset: DatasetJob, tokenizer: Any, example: Example) -> list[Row]:
        return [_row(tokenizer, rated, dataset) for rated in unpaired(example)]

    def arguments(self, job: Job) -> tuple[type, dict[str, Any]]:
        from trl import KTOConfig

        from axoc_runtime.objectives.trl_trainer import common_arguments

        wanted = job.training.preference
        assert wanted is not None
        return KTOConfig, common_arguments(job) | {
            "beta": wanted.beta,
            "desirable_weight": wanted.desirable_weight,
            "undesirable_weight": wanted.undesirable_weight,
            "precompute_ref_log_probs": wanted.reference == "precomputed",
            "max_length": None,  # `prepare` has cut
        }

    def trainer(self, job: Job, **parts: Any) -> Any:
        from axoc_runtime.objectives.planned import padding_token
        from axoc_runtime.objectives.rated_trainer import RatedCollator, RatedTrainer
        from axoc_runtime.objectives.trl_trainer import reference_model, with_padding
        from axoc_runtime.strategies import device_of

        collator = RatedCollator(padding_token(with_padding(parts["processing_class"])))
        reference = reference_model(job, device_of(job))
        return RatedTrainer(job, ref_model=reference, data_collator=collator, **parts)


def unpaired(example: Example) -> list[Rated]:
    if isinstance(example, Rated):
        return [example]
    assert isinstance(example, Preference)
    return [
        Rated(prompt=example.prompt, completion=example.chosen, good=True),
        Rated(prompt=example.prompt, completion=example.rejected, good=False),
    ]


def _row(tokenizer: Any, rated: Rated, dataset: DatasetJob) -> Row:
    ids, start = answered(tokenizer, rated.prompt, rated.completion, dataset)
    if start == len(ids):
        raise BadRow("is empty as the model's chat template writes it", "completion")
    kept = ids[: dataset.max_seq_length]
    prompt, completion = kept[:start], kept[start:]
    return Row(
        columns={"prompt_ids": prompt, "completion_ids": completion, "label": rated.good},
        length=len(kept),
        tokens=len(kept),
        trained_tokens=len(completion),
        highest_id=max(kept),
        cut=len(ids) > len(kept),
    )
