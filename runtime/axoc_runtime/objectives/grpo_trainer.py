"""TRL's GRPO trainer on prepared prompts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trl import GRPOTrainer

from axoc_runtime.models.load import set_checkpointing
from axoc_runtime.objectives.trl_trainer import TrlTrainer


class SamplingTrainer(TrlTrainer, GRPOTrainer):
    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        """The template has written all special tokens itself."""
        return list(self.processing_class(text=prompts, add_special_tokens=False)["input_ids"]), None, {}

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        inputs = super()._prepare_inputs(generation_batch)
        if self.model.training:
            set_checkpointing(self.job, self.model)  # generating switches it off, and back on for all blocks
            for part in ("prompt_mask", "completion_mask"):
                self.add_tokens(inputs[part].sum(), inputs[part].numel())
        return inputs

    def count(self, inputs: Mapping[str, Any]) -> None:
        """Of prompts alone nothing is known yet: tokens are counted once they are answered."""
