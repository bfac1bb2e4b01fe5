"""Bytes of logits and loss. T x V dominates the peak of most small and middling models."""

from __future__ import annotations

from typing import Final, cast

import numpy as np

from axoc.cost.activations import Numerics
from axoc.cost.columns import Columns, Floats
from axoc.cost.scenario import Scenario

PLAIN_BACKWARD_BYTES: Final = 12.0
"""fp32 log-probabilities, the gradient of nll_loss and the gradient of log_softmax: 4 bytes each a logit."""
PLAIN_FORWARD_BYTES: Final = 10.0
"""bf16 logits, their fp32 copy, log-probabilities; then accelerate's own fp32 copy of the output."""
EVAL_BYTES: Final = 10.0
"""As the forward; the log-probabilities are freed, the fp32 output stays until the loss is gathered."""


def fused_chunk_bytes(scenario: Scenario, tokens: Floats) -> Floats:
    """Logits of one of Liger's chunks, in the compute dtype; their gradient takes their place.

    rows = next_pow2(ceil(T / ceil(V / h))). Source: liger_kernel 0.8.5, ops/fused_linear_cross_entropy.py.
    """
    model = scenario.model
    chunks = np.ceil(model.vocab_size / model.hidden_size)
    rows = 2.0 ** np.ceil(np.log2(np.maximum(1.0, np.ceil(tokens / chunks))))
    return cast(Floats, np.minimum(rows, tokens) * model.vocab_size * scenario.compute_bytes)


def loss_bytes(scenario: Scenario, c: Columns, tokens: Floats, n: Numerics) -> Floats:
    """Beyond the saved activations, at the top of loss and its backward."""
    vocabulary = float(scenario.model.vocab_size)
    if not scenario.fused_loss:
        # a cap on the logits saves its tanh
        capped = scenario.compute_bytes if scenario.model.logit_softcapping is not None else 0.0
        return cast(Floats, (PLAIN_BACKWARD_BYTES + capped) * tokens * vocabulary)
    matrix = scenario.sizes.vocabulary_matrix
    head_gradient = matrix * float(scenario.trainable_bytes) if scenario.is_full else 0.0
    input_gradient = tokens * scenario.model.hidden_size * n.stream
    # autocast caches its copy of a leaf, but a transposed one is a view: each chunk's product makes a copy anew
    transposed = n.casts * matrix * scenario.compute_bytes
    return cast(Floats, fused_chunk_bytes(scenario, tokens) + head_gradient + input_gradient + transposed)


def eval_bytes(scenario: Scenario, tokens: Floats) -> Floats:
    """At the top of one evaluation batch, which is as large as a training micro-batch.

    With Liger the runtime asks for no logits; left alone, its models make them all when they evaluate.
    """
    if scenario.fused_loss:
        return fused_chunk_bytes(scenario, tokens)
    return EVAL_BYTES * tokens * scenario.model.vocab_size
