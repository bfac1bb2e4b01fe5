"""What the objectives beyond imitation need: preferences (dpo, ipo, orpo, simpo, kto, reward) and sampling (grpo)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from pydantic import Field

from axoc.spec.numbers import Number, Whole
from axoc.spec.parts import MANY, Part
from axoc.spec.words import Flag, Text

REFERENCED: Final = ("dpo", "ipo", "kto")
"""Objectives that hold the policy against the model it began as."""
PREFERENCES: Final = (*REFERENCED, "orpo", "simpo", "reward")
BETAS: Final = {"dpo": 0.1, "ipo": 0.1, "kto": 0.1, "orpo": 0.1, "simpo": 2.0}
"""The papers' own: arXiv 2305.18290, 2310.12036 (tau), 2402.01306, 2403.07691 (lambda), 2405.14734."""
SMOOTHED: Final = ("dpo", "simpo")
"""Where TRL has a smoothed loss: dpo's is the robust one of arXiv 2403.00409."""


class Preference(Part):
    """Of the objectives dpo, ipo, orpo, simpo, kto."""

    beta: Annotated[float | str, Number(open_minimum=True, words=("auto",))] = Field(
        default="auto",
        description="Strength: of the pull to the reference (dpo, ipo, kto), of the odds ratio (orpo), of the margin "
        "(simpo). auto: 0.1, and 2.0 for simpo.",
    )
    label_smoothing: Annotated[float, Number(maximum=0.5, open_maximum=True)] = Field(
        default=0.0, description="Share of the pairs taken to be labelled the wrong way round (dpo, simpo)."
    )
    simpo_gamma: Annotated[float, Number()] = Field(
        default=1.0, description="Margin the chosen answer must win by (simpo); half of beta is a good start."
    )
    desirable_weight: Annotated[float, Number(open_minimum=True)] = Field(
        default=1.0, description="Weight of good answers (kto)."
    )
    undesirable_weight: Annotated[float, Number(open_minimum=True)] = Field(
        default=1.0, description="Weight of bad answers (kto)."
    )
    precompute_reference: Annotated[bool, Flag()] = Field(
        default=False,
        description="Compute the reference's log-probabilities once, before training: no second model stays in memory "
        "(dpo, ipo, kto).",
    )


class RewardFunction(Part):
    """A reward of completions."""

    short: ClassVar[str | None] = "name"

    name: Annotated[str, Text(what="a reward function")] = Field(
        default="answer",
        description="answer, number, think_format, brevity, or an entry point of axoc_runtime.rewards.",
    )
    weight: Annotated[float, Number(open_minimum=True)] = Field(
        default=1.0, description="Its share in the sum of rewards."
    )


class Grpo(Part):
    """Of the objective grpo."""

    generations: Annotated[int, Whole(minimum=2, maximum=65536)] = Field(
        default=8, description="Completions sampled for each prompt, compared with one another."
    )
    max_completion_length: Annotated[int, Whole()] = Field(
        default=256, description="Longest completion, in tokens; what is left of max_seq_length is the prompt's."
    )
    temperature: Annotated[float, Number(open_minimum=True)] = Field(default=1.0, description="Of sampling.")
    beta: Annotated[float, Number()] = Field(
        default=0.0, description="Weight of the distance to the model it began as; 0 needs no reference."
    )
    rewards: Annotated[tuple[RewardFunction, ...], MANY] = Field(
        default=(RewardFunction(name="answer"),),
        description="What a completion is rewarded for.",
        json_schema_extra={"default": [{"name": "answer"}]},
    )
