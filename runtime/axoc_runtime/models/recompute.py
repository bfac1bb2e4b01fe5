"""Which blocks recompute their activations in the backward pass."""

from __future__ import annotations

from typing import Any

from axoc_runtime.job import Job


def recomputed(job: Job, blocks: list[Any]) -> list[int]:
    """Indices, by the plan: of no block, of all, of the first ``checkpointed_layers``, or of those that are large."""
    training = job.training
    if training.gradient_checkpointing == "none":
        return []
    if training.checkpoint_above_parameters is not None:
        return [i for i, block in enumerate(blocks) if base_parameters(block) > training.checkpoint_above_parameters]
    every = list(range(len(blocks)))
    return every if training.gradient_checkpointing == "full" else every[: training.checkpointed_layers]


def base_parameters(block: Any) -> int:
    """Whole, however they are sharded, and without an adapter's, as the planner counts."""
    from axoc_runtime.strategies.promised import full_size

    return sum(full_size(p) for name, p in block.named_parameters() if "lora_" not in name)
