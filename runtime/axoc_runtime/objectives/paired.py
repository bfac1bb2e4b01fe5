"""DPO and IPO: of two answers, the chosen one is to gain on the rejected one, against what the model said before."""

from __future__ import annotations

from typing import Any, ClassVar, Final

from axoc_runtime.ingest.base import Example, Preference
from axoc_runtime.job import DatasetJob, Job
from axoc_runtime.objectives.answers import answered, shared_prompt
from axoc_runtime.objectives.base import Figure, Objective, Row

PREFERENCE_FIGURES: Final = (
    Figure(name="reward_margin", log="eval_rewards/margins", title="reward margin"),
    Figure(name="reward_accuracy", log="eval_rewards/accuracies", title="reward accuracy"),
    Figure(name="eval_loss", log="eval_loss", title="loss"),
)


def pair(
    job: Job, dataset: DatasetJob, tokenizer: Any, example: Example
) -> tuple[list[int], list[int], list[int], bool]:
    """(prompt, chosen, rejected, whether one was cut); answers are empty where no token of one is left. Raises BadRow."""
    assert isinstance(example, Preference)
    chosen = answered(tokenizer, example.prompt, example.chosen, dataset)
    rejected = answered(tokenizer, example.prompt, example.rejected, dataset)
    start, limit = shared_prompt(chosen, rejected), dataset.max_seq_length
    cut = max(len(chosen[0]), len(rejected[0])) > limit
    kept = [ids[start:limit] for ids, _ in (chosen, rejected)]
    same = kept[0] == kept[1]  # what told them apart was cut off
    return chosen[0][:start], [] if same else kept[0], [] if same else kept[1], cut


class Paired(Objective):
    """Rows of a prompt and two answers."""

    accepts = (Preference,)
    wants = "a prompt with a chosen and a rejected answer"
    figures = PREFERENCE_FIGURES
    sequences_per_row = 2

    def rows(self, job: Job, dataset: DatasetJob, tokenizer: Any, example: Example) -> list[Row]:
        prompt, chosen, rejected, cut = pair(job, dataset, tokenizer, example)
        return [
            Row(
                columns=self.named(prompt, chosen, rejected),
                length=len(prompt) + max(len(chosen), len(rejected)),
                tokens=2 * len(prompt) + len(chosen) + len(rejected),
                trained_tokens=len(chosen) + len(rejected) if chosen and rejected else 0,
                highest_id=max([*prompt, *chosen, *rejected], default=0),
                cut=cut,
            )
        ]

    def named(self, prompt: list[int], chosen: list[int], rejected: list[int]) -> dict[str, list[int]]:
        raise NotImplementedError


class Dpo(Paired):
    name = "dpo"
    columns = {"prompt_ids": "tokens", "chosen_ids": "tokens", "rejected_ids": "tokens"}  # noqa: RUF012
    loss: ClassVar[str] = "sigmoid"

    def named(self, prompt: list[int], chosen: list[int], rejected: list[int]) -> dict[str, list[int]]:
        return {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}

    def arguments(self, job: Job) -> tuple[type, dict[str, Any]]:
        from trl import DPOConfig

        from axoc_runtime.objectives.trl_trainer import PAD_MULTIPLE, common_arguments

        wanted = job.training.preference
        assert wanted is not None
        return DPOConfig, common_arguments(job) | {
            "loss_type": "robust" if wanted.label_smoothing > 0 else self.loss,
            "beta": wanted.beta,
            "label_smoothing": wanted.label_smoothing,
            "precompute_ref_log_probs": wanted.reference == "precomputed",
            "max_length": None,  # `prepare` has cut
            "pad_to_multiple_of": PAD_MULTIPLE,
        }

    def trainer(self, job: Job, **parts: Any) -> Any:
        from trl import DPOTrainer

        from axoc_runtime.objectives.trl_trainer import TrlTrainer, reference_model, with_padding
        from axoc_runtime.strategies import device_of

        class Trainer(TrlTrainer, DPOTrainer):
            pass

        with_padding(parts["processing_class"])
        return Trainer(job, ref_model=reference_model(job, device_of(job)), **parts)


class Ipo(Dpo):
    name = "ipo"
    loss = "ipo"
