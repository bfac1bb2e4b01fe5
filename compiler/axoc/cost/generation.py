"""Sampling answers with the model that is trained: its cache of keys and values, and the seconds of one token after another.

trl/trainer/grpo_trainer.py, _generate_single_turn: all completions of a step's micro-batches on a rank are sampled at once by
transformers' generate, with a cache that grows by concatenation (transformers/cache_utils.py: DynamicLayer.update).
"""

from __future__ import annotations

from typing import Final, cast

import numpy as np

from axoc.cost.columns import Columns, Floats
from axoc.cost.kernels import kernels_of
from axoc.cost.passes import forward_seconds, launch_seconds
from axoc.cost.scenario import Scenario

FP32: Final = 4.0
SAMPLING_COPIES: Final = 4.0
"""Of the last token's logits in fp32: the cast, the temperature's quotient, the filtered scores, the probabilities
(transformers/generation/utils.py: _sample)."""


def sequences(c: Columns) -> Floats:
    """Completions that a rank samples at once: of all micro-batches of a step (steps_per_generation)."""
    return cast(Floats, c.micro_batch * c.accumulation * 1.0)


def cache_bytes(scenario: Scenario, c: Columns) -> Floats:
    """Keys and values of all layers for prompt and completion in full, in the compute dtype; while a layer's grows, the
    longer copy of one of the two stands beside it."""
    model = scenario.model
    layer = 2.0 * model.num_kv_heads * model.head_dim * scenario.compute_bytes * scenario.seq_length
    return cast(Floats, sequences(c) * layer * (model.num_layers + 0.5))


def sampling_bytes(scenario: Scenario, c: Columns) -> Floats:
    """The last token's logits, and what a token is drawn from."""
    return cast(Floats, sequences(c) * scenario.model.vocab_size * (scenario.compute_bytes + SAMPLING_COPIES * FP32))


def generation_seconds(scenario: Scenario, c: Columns) -> Floats:
    """Of one optimizer step: the prompts in one forward; then a token of every completion at a time, which reads all
    weights and on average the prompt's and half the completion's keys and values, or waits for the host's launches."""
    generated = scenario.objective.generated
    if generated is None or not len(c):
        return np.zeros(len(c))
    length = float(generated.completion_length)
    prompt = scenario.seq_length - length
    prefill = forward_seconds(scenario, c) * c.accumulation * prompt / scenario.seq_length
    cached = cache_bytes(scenario, c) * (prompt + length / 2) / scenario.seq_length
    weights = float(scenario.sizes.blocks + scenario.sizes.vocabulary_matrix) * scenario.compute_bytes
    read = kernels_of(scenario).moved(weights + cached)
    return cast(Floats, prefill + length * np.maximum(read, launch_seconds(scenario, c)))
