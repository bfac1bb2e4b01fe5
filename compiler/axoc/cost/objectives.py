"""What an objective asks of a model beside the next token's loss: sequences, passes without gradients, the loss's shape.

Read off TRL 1.16.0 and its experimental trainers: dpo_trainer.py (IPO is one of its losses), kto_trainer.py,
reward_trainer.py, experimental/orpo, experimental/cpo (SimPO is one of its losses), grpo_trainer.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

from axoc.ir.request import TrainingRequest

Loss = Literal["cross_entropy", "log_probabilities", "whole_logits", "score"]
"""cross_entropy: of the next token. log_probabilities: of the answers' tokens, the logits tile by tile
(add_fused_lm_head). whole_logits: log-probabilities and cross-entropy of logits in full (get_batch_logps). score: one
number a token instead of logits (AutoModelForSequenceClassification)."""


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The terms of one objective, as one run has them."""

    sequences_per_row: int = 1
    """In one forward: a pair's two answers go through the model together (DataCollatorForPreference)."""
    loss: Loss = "cross_entropy"
    also_imitates: bool = False
    """The chosen answers' cross-entropy is a part of the loss."""
    policy_passes: int = 0
    """Forwards of the trained model without gradients, beside the one with: each as large as a micro-batch."""
    reference_passes: int = 0
    reference: str = "none"
    """none | adapter | model | precomputed, as in the request."""
    generated: Generation | None = None

    @property
    def passes(self) -> int:
        """Forwards without gradients in a micro-step."""
        return self.policy_passes + self.reference_passes

    @property
    def holds_reference(self) -> bool:
        """A second copy of the weights is in memory."""
        return self.reference == "model"


@dataclass(frozen=True, kw_only=True)
class Generation:
    """Answers that the model samples to be trained on."""

    completions: int
    """Of one prompt."""
    completion_length: int
    """Tokens."""


IMITATION: Final = Objective()
TERMS: Final = {
    "sft": IMITATION,
    "pretrain": IMITATION,
    "dpo": Objective(sequences_per_row=2, loss="log_probabilities", reference_passes=1),
    "ipo": Objective(sequences_per_row=2, loss="log_probabilities", reference_passes=1),
    "orpo": Objective(sequences_per_row=2, loss="whole_logits", also_imitates=True),
    "simpo": Objective(sequences_per_row=2, loss="whole_logits"),
    # mismatched answers, for the distance of the two, go through both models (_compute_kl_logps)
    "kto": Objective(loss="log_probabilities", policy_passes=1, reference_passes=2),
    "reward": Objective(sequences_per_row=2, loss="score"),
    "grpo": Objective(loss="log_probabilities", reference_passes=1),
}
"""By name, with every pass that there may be."""


def objective_of(training: TrainingRequest) -> Objective:
    """As this run has it: nothing is asked of a reference that is not there, or was asked before training."""
    terms = TERMS[training.objective]
    wanted = training.preference or training.grpo
    reference = "none" if wanted is None else wanted.reference
    if reference in ("none", "precomputed"):
        terms = replace(terms, reference_passes=0)
    generated = None
    if training.grpo is not None:
        grpo = training.grpo
        generated = Generation(completions=grpo.generations, completion_length=grpo.max_completion_length)
    return replace(terms, reference=reference, generated=generated)
