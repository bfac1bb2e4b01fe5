"""Floating-point operations of one micro-step on one rank. A matrix product of m x k by k x n counts 2mkn."""

from __future__ import annotations

from typing import cast

from axoc.cost import lengths
from axoc.cost.columns import Columns, Floats
from axoc.cost.scenario import Scenario


def tokens(scenario: Scenario, c: Columns) -> Floats:
    """Of all sequences of a micro-batch, all of them full: a row may be several."""
    return cast(Floats, c.micro_batch * float(scenario.seq_length * scenario.objective.sequences_per_row))


def recomputed_share(scenario: Scenario, c: Columns) -> Floats:
    """Share of the blocks whose forward runs twice."""
    return cast(Floats, c.checkpointed_layers / scenario.model.num_layers)


def block_forward(scenario: Scenario, c: Columns) -> Floats:
    """Linear layers of all blocks, forward."""
    return 2.0 * lengths.real_tokens(scenario, c) * scenario.sizes.active_linear / c.tensor_parallel


def head_forward(scenario: Scenario, c: Columns) -> Floats:
    return 2.0 * lengths.real_tokens(scenario, c) * scenario.sizes.vocabulary_matrix / c.tensor_parallel


def adapter_forward(scenario: Scenario, c: Columns) -> Floats:
    return 2.0 * lengths.real_tokens(scenario, c) * (0 if scenario.is_full else scenario.trainable)


def attention_forward(scenario: Scenario, c: Columns) -> Floats:
    """Scores and values, causal: half of 4 s^2 d a head; a sliding window sees at most its width."""
    model = scenario.model
    width = model.num_heads * model.head_dim
    seq = float(scenario.seq_length) if scenario.lengths is None else lengths.seen(scenario.trained_lengths)
    window = min(seq, model.sliding_window or seq)
    full = 2.0 * seq  # 4 s d / 2 for each token
    windowed = 4.0 * (window - window * window / (2 * seq))
    layers_full = model.num_layers - model.sliding_window_layers
    per_token = width * (layers_full * full + model.sliding_window_layers * windowed)
    return lengths.real_tokens(scenario, c) * per_token / c.tensor_parallel


def model_flops(scenario: Scenario, c: Columns) -> Floats:
    """What the mathematics needs, without recomputation: the numerator of MFU."""
    linear = block_forward(scenario, c) + head_forward(scenario, c)
    backward = 2.0 if scenario.is_full else 1.0
    adapter = 3.0 * adapter_forward(scenario, c)
    passes = scenario.objective.passes * (linear + attention_forward(scenario, c))
    return (1 + backward) * linear + adapter + 3.5 * attention_forward(scenario, c) + passes
