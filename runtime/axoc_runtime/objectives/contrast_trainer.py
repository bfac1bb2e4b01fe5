"""TRL's experimental trainers of pairs, given prepared rows: they would tokenize in their constructor."""

from __future__ import annotations

from typing import Any

import torch

from axoc_runtime.objectives.contrasted import IGNORED
from axoc_runtime.objectives.trl_trainer import PAD_MULTIPLE, TrlTrainer


class PairCollator:
    """Both answers padded on the right to the longest of the batch; padding is masked in attention and labels."""

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        longest = max(len(r[f"{side}_input_ids"]) for r in rows for side in ("chosen", "rejected"))
        width = -(-longest // PAD_MULTIPLE) * PAD_MULTIPLE
        batch = {}
        for side in ("chosen", "rejected"):
            ids, labels = ([r[f"{side}_{part}"] for r in rows] for part in ("input_ids", "labels"))
            batch[f"{side}_input_ids"] = _padded(ids, self.pad_token_id, width)
            batch[f"{side}_labels"] = _padded(labels, IGNORED, width)
            batch[f"{side}_attention_mask"] = _padded([[1] * len(i) for i in ids], 0, width)
        return batch


def _padded(rows: list[list[int]], fill: int, width: int) -> torch.Tensor:
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])


def contrast_trainer(base: Any) -> Any:
    """``base``: ORPOTrainer or CPOTrainer."""

    class Trainer(TrlTrainer, base):
        def __init__(self, job: Any, *, train_dataset: Any, eval_dataset: Any, **kwargs: Any) -> None:
            super().__init__(job, train_dataset=_ready(train_dataset), eval_dataset=_ready(eval_dataset), **kwargs)

        def _taken(self) -> dict[str, float]:
            """Of this kind of trainer: already named as in the log."""
            kept = self._stored_metrics.pop("eval", {})
            return {name: sum(values) / len(values) for name, values in kept.items()}

    return Trainer


def _ready(rows: Any) -> Any:
    """The same rows, on which ``map`` finds nothing to do."""
    if rows is None:
        return None
    made = rows.select(range(len(rows)))
    made.map = lambda *args, **kwargs: made
    return made
