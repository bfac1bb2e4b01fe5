"""Training: objective, length, batches, optimizer, schedule."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from axoc.cost.scenario import OPTIMIZER_STATE_BYTES
from axoc.spec.dataset import SEED
from axoc.spec.numbers import Number, Whole
from axoc.spec.parts import EMPTY, Part
from axoc.spec.preferences import Grpo, Preference
from axoc.spec.words import Words

COUNT: Final = Whole()
AUTO_COUNT: Final = Whole(words=("auto",))
OBJECTIVES: Final = Words(
    ("sft", "pretrain", "dpo", "ipo", "kto", "orpo", "simpo", "reward", "grpo"),
    {"clm": "pretrain", "pt": "pretrain", "rm": "reward", "instruct": "sft"},
)
CHECKPOINTING: Final = Words(
    ("auto", "none", "full", "selective"),
    {"true": "full", "yes": "full", "on": "full", "false": "none", "no": "none", "off": "none", "null": "none"},
)
OPTIMIZERS: Final = Words(
    ("auto", *OPTIMIZER_STATE_BYTES),
    {
        "adamw": "adamw_torch_fused",
        "adam": "adamw_torch_fused",
        "adamw_hf": "adamw_torch",
        "adamw_8bit": "adamw_bnb_8bit",
        "paged_adamw_8bit": "adamw_bnb_8bit",
    },
)
BF16_UPDATES: Final = Words(("nearest", "stochastic"), {"sr": "stochastic", "stochastic_rounding": "stochastic"})
SCHEDULERS: Final = Words(
    (
        "linear",
        "cosine",
        "cosine_with_restarts",
        "polynomial",
        "constant",
        "constant_with_warmup",
        "inverse_sqrt",
    ),
    {"none": "constant", "constant_with_warm_up": "constant_with_warmup"},
)
"""Of transformers' schedulers those that need no further arguments."""


class Training(Part):
    objective: Annotated[str, OBJECTIVES] = Field(default="sft", description="What is learned.")
    epochs: Annotated[float | None, Number(open_minimum=True, words=("null",))] = Field(
        default=None, description="Passes over the data; or give max_steps.", json_schema_extra={"default": 1}
    )
    max_steps: Annotated[int | None, Whole(words=("null",))] = Field(
        default=None, description="Optimizer steps; or give epochs."
    )
    global_batch_size: Annotated[int | str, AUTO_COUNT] = Field(
        default="auto", description="Sequences in an optimizer step."
    )
    micro_batch_size: Annotated[int | str, AUTO_COUNT] = Field(
        default="auto", description="Sequences a device at a time."
    )
    gradient_accumulation_steps: Annotated[int | str, AUTO_COUNT] = Field(
        default="auto", description="Micro-batches in an optimizer step."
    )
    gradient_checkpointing: Annotated[str, CHECKPOINTING] = Field(
        default="auto", description="Recompute activations in the backward pass: less memory, more time."
    )
    checkpoint_above_parameters: Annotated[int | None, Whole(words=("null",))] = Field(
        default=None, description="Recompute the blocks with more parameters than this, and no others."
    )
    optimizer: Annotated[str, OPTIMIZERS] = Field(
        default="adamw_torch_fused",
        description="Optimizer. auto: AdamW with states of 32 or 8 bits, by policy.objective.",
    )
    bf16_update: Annotated[str, BF16_UPDATES] = Field(
        default="nearest",
        description="How updates of bfloat16 weights are rounded. stochastic: up or down by chance, so that none is lost on "
        "average; float32 masters are model.dtype: float32.",
    )
    learning_rate: Annotated[float, Number(open_minimum=True, maximum=10.0)] = Field(
        default=2.0e-5, description="Peak learning rate."
    )
    lr_scheduler: Annotated[str, SCHEDULERS] = Field(default="cosine", description="Course of the learning rate.")
    warmup_ratio: Annotated[float, Number(maximum=1.0, open_maximum=True)] = Field(
        default=0.03, description="Share of the steps to warm up in."
    )
    weight_decay: Annotated[float, Number()] = Field(default=0.0, description="Weight decay.")
    max_grad_norm: Annotated[float, Number()] = Field(default=1.0, description="Gradients are clipped to this norm.")
    seed: Annotated[int, SEED] = Field(default=42, description="Seed of order, dropout and new weights.")
    logging_steps: Annotated[int, COUNT] = Field(default=10, description="Steps between lines of the log.")
    eval_steps: Annotated[int | str, AUTO_COUNT] = Field(default="auto", description="Steps between evaluations.")
    eval_rows: Annotated[int | None, Whole(words=("null",))] = Field(
        default=None,
        description="Held-out rows that evaluations during training look at, always the same; before and after, all.",
    )
    save_steps: Annotated[int | str, AUTO_COUNT] = Field(default="auto", description="Steps between checkpoints.")
    early_stopping_patience: Annotated[int | None, Whole(words=("null",))] = Field(
        default=None, description="Stop after so many evaluations without a better loss."
    )
    preference: Preference = Field(
        default_factory=Preference,
        description="Of learning from preferences: dpo, ipo, orpo, simpo, kto.",
        json_schema_extra=EMPTY,
    )
    grpo: Grpo = Field(default_factory=Grpo, description="Of grpo.", json_schema_extra=EMPTY)
