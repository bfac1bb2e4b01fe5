"""Gradients that are there at a moment of a backward: of the blocks, of the vocabulary matrix, and those that wait."""

from __future__ import annotations

from typing import Final, cast

import numpy as np

from axoc.cost import split, states
from axoc.cost.columns import Bools, Columns, Floats
from axoc.cost.scenario import Scenario

EMBEDDING_SORTS_ABOVE: Final = 3072
"""Tokens (ATen/native/cuda/Embedding.cu, embedding_dense_backward_cuda)."""


def reduces(c: Columns) -> Bools:
    """Whole gradients are reduced as they come, and let go of."""
    return c.uses("zero2", "zero3", "fsdp")


def carries(c: Columns) -> Bools:
    """Gradients are there when a backward begins."""
    return (c.accumulation > 1) | states.held_from_start(c)


def of_plain_blocks(scenario: Scenario, c: Columns, gradients: Floats) -> Floats:
    """Gradients of the blocks after the recomputed ones, which are complete when recomputation begins."""
    share = split.blocks(scenario, c) if scenario.is_full else 1.0
    plain = 1 - c.checkpointed_layers / scenario.model.num_layers
    return cast(Floats, np.where(carries(c), 0.0, gradients * share * plain))


def of_one_block(scenario: Scenario, c: Columns) -> Floats:
    """Of one block."""
    one = scenario.sizes.block / max(1, scenario.sizes.blocks)
    share = split.blocks(scenario, c) * one if scenario.is_full else 1 / scenario.model.num_layers
    return cast(Floats, states.gradients(scenario, c) * share)


def of_blocks(scenario: Scenario, c: Columns, gradients: Floats) -> Floats:
    """Of all blocks."""
    return gradients * split.blocks(scenario, c) if scenario.is_full else gradients


def waiting(scenario: Scenario, c: Columns) -> Floats:
    """A tied one waits for the lookup's; an untied one is reduced at once where gradients are reduced as they come, which
    under FSDP2 leaves a share of it."""
    if not scenario.is_full:
        return np.zeros(len(c))
    tied = 0.0 if scenario.sizes.lm_head else 1.0
    added = np.where(carries(c), tied, 1.0)  # an untied gradient is added at once to the one that is there
    share = np.where(c.uses("fsdp") & ~carries(c), 1.0 / c.gradient_shards, 0.0)
    stays = np.where(reduces(c), np.maximum(tied, share), added)
    return cast(Floats, of_matrix(scenario, c) * stays)


def of_matrix(scenario: Scenario, c: Columns) -> Floats:
    """Of the head's matrix, a rank's whole part."""
    return split.matrix(scenario, c) * states.gradient_element_bytes(scenario, c)


def of_embedding(scenario: Scenario, c: Columns) -> Floats:
    """The last gradient to exist, where the embedding is not also the head."""
    if not scenario.is_full or scenario.sizes.lm_head == 0:
        return np.zeros(len(c))
    return scenario.sizes.embedding * states.gradient_element_bytes(scenario, c)


def embedding_working(scenario: Scenario, c: Columns, tokens: Floats) -> Floats:
    """The lookup's gradient beside one that waits for it or is there; above 3,072 tokens its rows are summed in parts
    (ATen/native/cuda/EmbeddingBackwardKernel.cu): fp32 rows, one for each ten tokens and for each that may differ."""
    if not scenario.is_full:
        return np.zeros(len(c))
    sizes = scenario.sizes
    tied = sizes.lm_head == 0
    element = states.gradient_element_bytes(scenario, c)
    matrix = of_matrix(scenario, c) if tied else scenario.sizes.vocabulary_matrix * element
    second = np.where(carries(c) | reduces(c) | tied, matrix, 0.0)
    rows = np.floor(tokens / 10) + np.minimum(tokens, scenario.model.vocab_size)
    parts = np.where(tokens > EMBEDDING_SORTS_ABOVE, rows * scenario.model.hidden_size * 4.0, 0.0)
    return cast(Floats, second + np.maximum(parts, np.where(_summed_apart(scenario, c) & tied, matrix, 0.0)))


def _summed_apart(scenario: Scenario, c: Columns) -> Bools:
    """A tied matrix' two gradients are summed in a third tensor where the head's is a view (of its product, transposed):
    autograd adds in place only into memory that one tensor alone refers to (torch/csrc/autograd/input_buffer.cpp). A
    cast of autocast's makes it one, Liger's is its own, and so is that of ZeRO-3's linear layer (deepspeed
    runtime/zero/linear.py). Seen with torch's profiler on tied matrices."""
    autocast = ~(c.deepspeed | c.uses("fsdp")) & (scenario.mixed_precision != "no")
    casts = autocast & (scenario.weight_bytes > scenario.compute_bytes)
    return cast(Bools, ~casts & ~c.uses("zero3") & (scenario.each(c, lambda s: s.fused_loss) == 0))
