"""Supervised fine-tuning and continued pre-training on transformers' Trainer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import Trainer

from axoc_runtime.objectives.perplexity import IGNORED, mean_negative_log_likelihood, perplexity
from axoc_runtime.objectives.planned import Planned
from axoc_runtime.objectives.streamed import Streamed, StreamLoader
from axoc_runtime.strategies import data_rank

PAD_MULTIPLE = 8
"""Matrix units want multiples of 8."""


class Collator:
    """Pads on the right to the longest row of a batch; padding is masked in attention and labels."""

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        lengths = np.array([len(r["input_ids"]) for r in rows])
        width = -(-int(lengths.max()) // PAD_MULTIPLE) * PAD_MULTIPLE
        filled = np.arange(width) < lengths[:, None]

        def padded(column: str, fill: int) -> torch.Tensor:
            values = np.full(filled.shape, fill, np.int64)
            values[filled] = np.concatenate([r[column] for r in rows])
            return torch.from_numpy(values)

        return {
            "input_ids": padded("input_ids", self.pad_token_id),
            "labels": padded("labels", IGNORED),
            "attention_mask": torch.from_numpy(filled.astype(np.int64)),
        }


def by_length(rows: Any) -> Any:
    """The longest first: little padding, and what runs out of memory does so at once. The mean does not depend on it."""
    return rows.sort("length", reverse=True) if "length" in rows.column_names else rows


class AxocTrainer(Planned, Trainer):
    """The Trainer with exact evaluation, and with rows that are streamed."""

    def get_train_dataloader(self) -> Any:
        if not isinstance(self.train_dataset, Streamed):
            return super().get_train_dataloader()
        self.train_dataset.steps_done = lambda: self.state.global_step
        return StreamLoader(self.job, self.train_dataset, self.data_collator)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Loss a label token and perplexity on the held-out split, over all ranks."""
        nats, tokens = self.held_out_loss(self.rows_to_evaluate(eval_dataset))
        metrics = {
            f"{metric_key_prefix}_loss": nats,
            f"{metric_key_prefix}_perplexity": perplexity(nats),
            f"{metric_key_prefix}_tokens": float(tokens),
        }
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def held_out(self) -> dict[str, float]:
        nats, _ = self.held_out_loss(self.eval_dataset)
        return {"perplexity": perplexity(nats), "eval_loss": nats}

    def held_out_loss(self, rows: Any) -> tuple[float, int]:
        return mean_negative_log_likelihood(
            self.model_wrapped,
            by_length(rows),
            self.data_collator,
            batch_size=self.args.per_device_eval_batch_size,
            device=self.args.device,
            rank=data_rank(self.job),
            world=self.job.distributed.data_parallel,
            options={"skip_logits": True} if self.job.model.kernels == "liger" else {},
        )
