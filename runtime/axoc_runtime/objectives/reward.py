"""Reward modelling: one number for an answer, higher for the chosen one of a pair."""

from __future__ import annotations

from typing import Any

from axoc_runtime.job import Job
from axoc_runtime.objectives.base import Figure
from axoc_runtime.objectives.paired import Paired


class Reward(Paired):
    name = "reward"
    columns = {"chosen_ids": "tokens", "rejected_ids": "tokens"}  # noqa: RUF012
    figures = (
        Figure(name="reward_accuracy", log="eval_accuracy", title="reward accuracy"),
        Figure(name="reward_margin", log="eval_margin", title="reward margin"),
        Figure(name="eval_loss", log="eval_loss", title="loss"),
    )
    answers = False

    def named(self, prompt: list[int], chosen: list[int], rejected: list[int]) -> dict[str, list[int]]:
        return {"chosen_ids": [*prompt, *chosen], "rejected_ids": [*prompt, *rejected]}

    def arguments(self, job: Job) -> tuple[type, dict[str, Any]]:
        from trl import RewardConfig

        from axoc_runtime.objectives.trl_trainer import PAD_MULTIPLE, common_arguments

        return RewardConfig, common_arguments(job) | {"max_length": None, "pad_to_multiple_of": PAD_MULTIPLE}

    def trainer(self, job: Job, **parts: Any) -> Any:
        from trl import RewardTrainer

        from axoc_runtime.objectives.trl_trainer import TrlTrainer, with_padding

        class Trainer(TrlTrainer, RewardTrainer):
            pass

        with_padding(parts["processing_class"])
        return Trainer(job, **parts)
