"""Supervised fine-tuning and continued pre-training on transformers' Trainer."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Trainer

from axoc_runtime.objectives.perplexity import IGNORED, mean_negative_log_likelihood, perplexity
from axoc_runtime.objectives.planned import Planned
from axoc_runtime.strategies import data_rank

PAD_MULTIPLE = 8
"""Matrix units want multiples of 8."""


class Collator:
    """Pads on the right to the longest row of a batch; padding is masked in attention and labels."""

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        longest = max(len(r["input_ids"]) for r in rows)
        width = -(-longest // PAD_MULTIPLE) * PAD_MULTIPLE

        def padded(values: list[int], fill: int) -> list[int]:
            return list(values) + [fill] * (width - len(values))

        return {
            "input_ids": torch.tensor([padded(r["input_ids"], self.pad_token_id) for r in rows]),
            "labels": torch.tensor([padded(r["labels"], IGNORED) for r in rows]),
            "attention_mask": torch.tensor([padded([1] * len(r["input_ids"]), 0) for r in rows]),
        }


def by_length(rows: Any) -> Any:
    """The longest first: little padding, and what runs out of memory does so at once. The mean does not depend on it."""
    return rows.sort("length", reverse=True) if "length" in rows.column_names else rows


class AxocTrainer(Planned, Trainer):
    """The Trainer with exact evaluation."""

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Loss a label token and perplexity on the held-out split, over all ranks."""
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        nats, tokens = self.held_out_loss(rows)
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
