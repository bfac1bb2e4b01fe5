"""Supervised fine-tuning and continued pre-training on transformers' Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from axoc_runtime.job import Job
from axoc_runtime.models.load import set_checkpointing
from axoc_runtime.objectives.perplexity import IGNORED, mean_negative_log_likelihood, perplexity
from axoc_runtime.strategies import force_fsdp_on_cpu, rank, world_size

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


class AxocTrainer(Trainer):
    """The Trainer with exact evaluation, counted tokens, planned checkpointing, and FSDP that is real on a CPU."""

    control: Any

    def __init__(self, job: Job, **kwargs: Any) -> None:
        self.job = job
        self.tokens_seen = 0
        """Real (non-padding) tokens of this rank."""
        self.padded_tokens_seen = 0
        super().__init__(**kwargs)
        set_checkpointing(job, self.model)

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        if self.job.distributed.strategy == "fsdp" and self.job.distributed.device == "cpu":
            force_fsdp_on_cpu(self)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """With the folder there first. transformers takes a checkpoint for the best only if its folder exists, and looks
        before FSDP's sharded save has made it (trainer.py: ``_save_checkpoint``): ranks then disagree on which is best,
        and the run hangs when it is loaded."""
        folder = Path(self.args.output_dir, f"checkpoint-{self.state.global_step}")
        folder.mkdir(parents=True, exist_ok=True)
        super()._save_checkpoint(model, trial)
        if rank() == 0:
            self._describe(folder)

    def _describe(self, folder: Path) -> None:
        """Tokenizer and configuration beside the weights: transformers leaves both out where FSDP saves shards."""
        self.processing_class.save_pretrained(folder)
        if self.job.adapter is None:
            self.accelerator.unwrap_model(self.model).config.save_pretrained(folder)

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        self.tokens_seen += int(inputs["attention_mask"].sum())
        self.padded_tokens_seen += inputs["attention_mask"].numel()
        loss: torch.Tensor = super().training_step(model, inputs, *args, **kwargs)
        return loss

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

    def held_out_loss(self, rows: Any) -> tuple[float, int]:
        return mean_negative_log_likelihood(
            self.model_wrapped,
            by_length(rows),
            self.data_collator,
            batch_size=self.args.per_device_eval_batch_size,
            device=self.args.device,
            rank=rank(),
            world=world_size(),
            options={"skip_logits": True} if self.job.model.kernels == "liger" else {},
        )
