"""TRL's KTO trainer on prepared rows, and the batches it wants."""

from __future__ import annotations

from typing import Any

import torch
from trl import KTOTrainer
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference

from axoc_runtime.objectives.trl_trainer import PAD_MULTIPLE, TrlTrainer


class RatedCollator(DataCollatorForUnpairedPreference):
    """Each prompt also with the answer of the row before it in the batch: on these mismatched pairs KTO measures how far
    the policy is from the reference. TRL sets them when it tokenizes, for batches that are then the same in all epochs."""

    def __init__(self, pad_token_id: int) -> None:
        super().__init__(pad_token_id=pad_token_id, pad_to_multiple_of=PAD_MULTIPLE)

    def __call__(self, rows: list[dict[str, Any]], return_tensors: str | None = None) -> dict[str, torch.Tensor]:
        answers = [row["completion_ids"] for row in rows]
        mismatched = [answers[-1], *answers[:-1]]
        given = [row | {"KL_completion_ids": other} for row, other in zip(rows, mismatched, strict=True)]
        batch: dict[str, torch.Tensor] = super().__call__(given, return_tensors)
        return batch


class RatedTrainer(TrlTrainer, KTOTrainer):
    pass
