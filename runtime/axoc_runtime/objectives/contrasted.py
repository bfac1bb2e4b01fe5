"""ORPO and SimPO: the chosen answer is to gain on the rejected one, without a reference (TRL's experimental trainers)."""

from __future__ import annotations

from typing import Any

from axoc_runtime.job import Job
from axoc_runtime.objectives.paired import Paired

IGNORED = -100


class Contrasted(Paired):
    """Rows of two whole sequences; the trainers pad and join them."""

    columns = {f"{side}_{part}": "tokens" for side in ("chosen", "rejected") for part in ("input_ids", "labels")}  # noqa: RUF012

    def named(self, prompt: list[int], chosen: list[int], rejected: list[int]) -> dict[str, list[int]]:
        found = {}
        for side, answer in (("chosen", chosen), ("rejected", rejected)):
            found[f"{side}_input_ids"] = [*prompt, *answer]
            found[f"{side}_labels"] = [IGNORED] * len(prompt) + answer
        return found

    def own(self, job: Job) -> dict[str, Any]:
        """Arguments of the loss."""
        raise NotImplementedError

    def classes(self) -> tuple[Any, Any]:
        """(configuration, trainer)"""
        raise NotImplementedError

    def arguments(self, job: Job) -> tuple[type, dict[str, Any]]:
        from axoc_runtime.objectives.trl_trainer import common_arguments

        length = max(d.max_seq_length for d in job.datasets)
        return self.classes()[0], common_arguments(job) | self.own(job) | {"max_length": length}

    def trainer(self, job: Job, **parts: Any) -> Any:
        from axoc_runtime.objectives.contrast_trainer import PairCollator, contrast_trainer
        from axoc_runtime.objectives.planned import padding_token
        from axoc_runtime.objectives.trl_trainer import with_padding

        tokenizer = with_padding(parts["processing_class"])
        made = contrast_trainer(self.classes()[1])
        return made(job, data_collator=PairCollator(padding_token(tokenizer)), **parts)


class Orpo(Contrasted):
    name = "orpo"

    def classes(self) -> tuple[Any, Any]:
        from trl.experimental.orpo import ORPOConfig, ORPOTrainer

        return ORPOConfig, ORPOTrainer

    def own(self, job: Job) -> dict[str, Any]:
        assert job.training.preference is not None
        return {"beta": job.training.preference.beta}


class Simpo(Contrasted):
    name = "simpo"

    def classes(self) -> tuple[Any, Any]:
        from trl.experimental.cpo import CPOConfig, CPOTrainer

        return CPOConfig, CPOTrainer

    def own(self, job: Job) -> dict[str, Any]:
        """``cpo_alpha`` weighs cross-entropy, which SimPO has none of."""
        wanted = job.training.preference
        assert wanted is not None
        return {
            "loss_type": "simpo",
            "cpo_alpha": 0.0,
            "beta": wanted.beta,
            "simpo_gamma": wanted.simpo_gamma,
            "label_smoothing": wanted.label_smoothing,
        }
