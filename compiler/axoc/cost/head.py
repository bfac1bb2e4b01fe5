"""What comes after the blocks on a tape: final norm, head, logits and loss, and the start of the backward.

T x V dominates the peak of most small and middling models. Sources: transformers loss/loss_utils.py
(ForCausalLMLoss), accelerate utils/operations.py (ConvertOutputsToFp32), liger_kernel 0.8.5
ops/fused_linear_cross_entropy.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from axoc.cost import preference_head
from axoc.cost.blocks import Profile
from axoc.cost.chunked import chunked_loss
from axoc.cost.columns import Floats
from axoc.cost.layers import FP32, Setting, cast, lowered, norm, scaled, weight_copy
from axoc.cost.liger_loss import chunk_rows
from axoc.cost.tape import Parameter, Size, Storage, Tape, Value

SCALED_LOGITS: Final = ("granite",)
"""model_types that multiply their logits by a number."""


def plain_loss(t: Tape, s: Setting, hidden: Value) -> Value:
    """Logits in full, their fp32 copy, log-probabilities; then accelerate raises all outputs to fp32, logits included,
    before the Trainer drops them."""
    model = s.scenario.model
    logits = head(t, s, hidden)
    if model.logit_softcapping is not None:
        logits = _then(t, logits, scaled(t, logits))
        tanh = t.apply(model.vocab_size, logits.bytes, [logits], kind="tanh")
        t.keep_output(tanh)
        t.drop(logits)
        logits = _then(t, tanh, scaled(t, tanh))
    elif model.model_type in SCALED_LOGITS:
        logits = _then(t, logits, scaled(t, logits))
    raised = cast(t, logits, FP32)
    probabilities = t.apply(model.vocab_size, FP32, [raised], kind="log_softmax")
    t.keep_output(probabilities)
    loss = t.apply(0.0, FP32, [probabilities], saves=[probabilities.storage], kind="nll")
    t.drop(probabilities, raised)
    if s.scenario.mixed_precision != "no":
        logits = _then(t, logits, cast(t, logits, FP32))
    t.drop(logits)
    return loss


def _then(t: Tape, old: Value, new: Value) -> Value:
    t.drop(old)
    return new


def head(t: Tape, s: Setting, hidden: Value) -> Value:
    """lm_head: never quantized, never adapted; trained with all the rest, or by name (modules_to_save)."""
    matrix = s.scenario.sizes.vocabulary_matrix
    low = lowered(t, s, hidden)
    copy = weight_copy(t, s, matrix, s.weight, cached=head_trained(s))
    saves = ([low.storage] if head_trained(s) else []) + ([copy] if copy is not None else [])
    parameters = [head_parameter(s, low.bytes)] if head_trained(s) else []
    sizes = (float(s.scenario.model.hidden_size), float(s.scenario.model.vocab_size))
    result = t.apply(
        s.scenario.model.vocab_size, low.bytes, [low], saves=saves, parameters=parameters, kind="linear", sizes=sizes
    )
    if copy is not None:
        t.release(copy)
    t.drop(low)
    return result


def head_trained(s: Setting) -> bool:
    return s.scenario.trains_head


def head_parameter(s: Setting, computed: float) -> Parameter:
    """A tied matrix' first gradient waits for the lookup's, beside the one that may be there already."""
    sizes = s.scenario.sizes
    tied = s.scenario.trains_head and sizes.lm_head == 0
    share = s.gradient_bytes * s.weight / s.scenario.trainable_bytes  # an adapter's weights are of another dtype
    kept: Size = sizes.vocabulary_matrix * s.weight if tied else sizes.vocabulary_matrix * share
    return Parameter(sizes.vocabulary_matrix * computed, kept, computed != s.weight)


def fused_loss(t: Tape, s: Setting, hidden: Value) -> Value:
    """Liger: logits of a few rows at a time, and the gradients already in the forward, under autocast as it is."""
    matrix = s.scenario.sizes.vocabulary_matrix
    trained = head_trained(s) and t.records  # without a backward no gradient of the weight is made
    gradient = t.apply(
        hidden.width, hidden.bytes, [hidden], flows=("same",), kind="fused_loss", sizes=(trained, _copied(s) > 0)
    )
    of_weight = t.allocate(matrix * s.weight) if trained else None
    t.scratch(chunk_bytes(s, hidden, trained))
    if head_trained(s) and not t.records:
        t.cached = t.cached + _copied(s) * matrix
    saves = [gradient.storage, *([of_weight] if of_weight is not None else [])]
    parameters = [Parameter(0.0, head_parameter(s, s.weight).kept, False, whole=matrix * s.weight)] if trained else []
    loss = t.apply(0.0, FP32, [gradient], saves=saves, flows=("over",), parameters=parameters)
    for storage in saves:
        t.release(storage)
    return loss


def _copied(s: Setting) -> float:
    """Bytes of an element of autocast's copy of the head's weight; 0 where it needs none."""
    return s.compute if s.autocast and s.weight > s.compute else 0.0


def chunk_bytes(s: Setting, hidden: Value, trained: bool) -> Size:
    """Of one chunk: logits, which become their own gradient, and the products' copies.

    rows = next_pow2(ceil(T / ceil(V / h))). Where dtypes differ, autocast copies the transposed weight anew (it is no
    leaf), the weight itself (which it keeps where it is trained), and the rows.
    """
    model, matrix = s.scenario.model, s.scenario.sizes.vocabulary_matrix
    rows = chunk_rows(hidden.size / (model.hidden_size * hidden.bytes), model.hidden_size, model.vocab_size)
    lowers = s.autocast and hidden.bytes > s.compute
    element = s.compute if lowers else hidden.bytes
    copies = (2.0 if trained else 1.0) * _copied(s) * matrix
    return rows * element * (model.vocab_size + (model.hidden_size if lowers else 0)) + copies


def tail(s: Setting, tokens: Floats) -> Profile:
    """From the last block's output to the loss and back. ``kept`` and ``copies``: when the forward has ended."""
    t = Tape(tokens)
    loss = run(t, s)
    kept, forward = t.live, t.top
    t.reset()
    t.backward(loss, Storage(0.0))
    light = Tape(tokens, records=False)
    run(light, s)
    whole = np.zeros(len(tokens))
    return Profile(
        kept=kept - t.copies + whole,
        copies=t.copies + whole,
        cached=light.cached + whole,
        forward=forward + whole,
        light=light.top + whole,
        dropping=light.top + whole,
        backward=t.top + whole,
        later=t.top + whole,
        recomputed=t.top + whole,
        apart=whole,
    )


def run(t: Tape, s: Setting) -> Value:
    s = s.outside
    hidden = t.value(s.scenario.model.hidden_size, s.stream)
    normal = norm(t, s, hidden) if s.scenario.model.final_norm else t.again(hidden)
    t.drop(hidden)
    loss = LOSSES[s.scenario.objective.loss](t, s, normal)
    t.drop(normal)
    return loss


def _cross_entropy(t: Tape, s: Setting, hidden: Value) -> Value:
    if s.scenario.kernels == "chunked":
        trained = head_trained(s) and t.records
        return chunked_loss(t, s, hidden, head_parameter(s, s.weight) if trained else None)
    return fused_loss(t, s, hidden) if s.scenario.fused_loss else plain_loss(t, s, hidden)


def _log_probabilities(t: Tape, s: Setting, hidden: Value) -> Value:
    trained = head_trained(s) and t.records
    return preference_head.log_probabilities(t, s, hidden, head_parameter(s, s.weight) if trained else None)


LOSSES: Final[dict[str, Callable[[Tape, Setting, Value], Value]]] = {
    "cross_entropy": _cross_entropy,
    "log_probabilities": _log_probabilities,
    "whole_logits": lambda t, s, hidden: preference_head.whole_logits(t, s, head(t, s, hidden)),
    "score": preference_head.score,
}
"""By cost/objectives.py: Loss."""
