"""One decoder block on a tape: the order of its parts by family, what it keeps, and how much lives at its top."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from axoc.cost.attention import attention
from axoc.cost.columns import Floats
from axoc.cost.compiled.block import Compiled, compiled
from axoc.cost.compiled.block import forward as compiled_forward
from axoc.cost.experts import experts
from axoc.cost.layers import DROPOUT, FP32, Setting, add, dropout, norm
from axoc.cost.mlp import mlp
from axoc.cost.operations import Operations
from axoc.cost.scenario import Scenario
from axoc.cost.tape import Tape, Value
from axoc.facts.adapters import targeted_experts
from axoc.facts.parameters import targeted_linears
from axoc.ir.facts import ModelFacts


@dataclass(frozen=True)
class Kind:
    """Blocks that are alike."""

    count: float
    experts: bool
    windowed: bool
    """Its sliding window is shorter than the rows."""
    first: bool = False
    """Where the embedding is frozen, beside an adapter, the first block's input needs no gradient."""


def groups(scenario: Scenario) -> tuple[tuple[Kind, ...], ...]:
    """Blocks from first to last: groups one after the other, kinds that alternate within each."""
    model = scenario.model
    dense = model.num_layers if model.moe is None else model.moe.num_dense_layers
    first = 0 if scenario.trains_embedding else 1
    rest = max(dense, first)
    found = [
        _alternating(scenario, first, dense == 0, first=True),
        _alternating(scenario, rest - first, sparse=False),
        _alternating(scenario, model.num_layers - rest, sparse=True),
    ]
    return tuple(group for group in found if group)


def has_short_window(scenario: Scenario) -> bool:
    """Rows as long as the window, or longer, get a mask (transformers/masking_utils.py, _ignore_causal_mask_sdpa)."""
    window = scenario.model.sliding_window
    return window is not None and window <= scenario.seq_length


def _alternating(scenario: Scenario, count: int, sparse: bool, *, first: bool = False) -> tuple[Kind, ...]:
    """Blocks with a window that is shorter than the rows, and the others, in the model's proportion."""
    model = scenario.model
    short = has_short_window(scenario)
    windowed = model.sliding_window_layers / model.num_layers * count if short else 0.0
    if scenario.model.family == "falcon":  # its attention is always given a mask
        windowed = float(count)
    kinds = (Kind(windowed, sparse, True, first), Kind(count - windowed, sparse, False, first))
    return tuple(kind for kind in kinds if kind.count > 0)


@lru_cache(maxsize=64)
def target_paths(model: ModelFacts, targets: str | tuple[str, ...]) -> frozenset[str]:
    return frozenset(shape.path for shape in targeted_linears(model, targets))


@lru_cache(maxsize=64)
def expert_names(model: ModelFacts, targets: str | tuple[str, ...]) -> frozenset[str]:
    return frozenset(target.name for target in targeted_experts(model, targets))


def block(t: Tape, s: Setting, value: Value, kind: Kind) -> Value:
    """From the stream to the stream. The caller holds ``value``."""
    model = s.scenario.model
    family, sequential = model.family, model.norms_per_layer
    if family == "falcon" and s.scenario.attention == "eager" and not t.records:
        # FalconModel's name for what the block before returned, its softmax among it, lives until this one returns
        scores = model.num_heads * s.scenario.seq_length / s.tensor_parallel
        t.held_storages.append(t.allocate(scores * (FP32 if s.autocast else s.stream) * t.tokens))
    if family == "gpt_neox" or (family == "falcon" and (sequential == 1 or model.num_kv_heads > 1)):
        result = parallel(t, s, value, kind)
    elif family == "olmo2":
        result = after(t, s, value, kind)
    else:
        result = before(t, s, value, kind)
    t.leave()
    return result


def before(t: Tape, s: Setting, value: Value, kind: Kind) -> Value:
    """A norm before attention and before the MLP; in Gemma after them too."""
    middle = added(t, s, value, _attended(t, s, value, kind))
    result = added(t, s, middle, _transformed(t, s, middle, kind))
    t.drop(middle)
    return result


def after(t: Tape, s: Setting, value: Value, kind: Kind) -> Value:
    """OLMo 2: norms only after attention and MLP."""
    attended = attention(t, s, value, windowed=kind.windowed)
    middle = added(t, s, value, normed(t, s, attended))
    made = normed(t, s, mlp(t, s, middle, s.scenario.model.intermediate_size))
    result = added(t, s, middle, made)
    t.drop(middle)
    return result


def parallel(t: Tape, s: Setting, value: Value, kind: Kind) -> Value:
    """GPT-NeoX and Falcon: the MLP beside attention, from the same stream."""
    model = s.scenario.model
    first = norm(t, s, value)
    one = model.norms_per_layer == 1
    second = t.again(first) if one else None
    if model.family == "falcon" and not one:
        second = norm(t, s, value)
    attended = attention(t, s, first, windowed=kind.windowed)
    t.drop(first)
    if second is None:
        second = norm(t, s, value)
    made = mlp(t, s, second, model.intermediate_size)
    t.drop(second)
    both = add(t, made, attended)
    t.drop(made, attended)
    return added(t, s, value, both)


def _attended(t: Tape, s: Setting, value: Value, kind: Kind) -> Value:
    normal = norm(t, s, value)
    result = attention(t, s, normal, windowed=kind.windowed)
    t.drop(normal)
    return _sandwiched(t, s, result)


def _transformed(t: Tape, s: Setting, value: Value, kind: Kind) -> Value:
    normal = norm(t, s, value)
    result = experts(t, s, normal) if kind.experts else mlp(t, s, normal, s.scenario.model.intermediate_size)
    t.drop(normal)
    return _sandwiched(t, s, result)


def _sandwiched(t: Tape, s: Setting, value: Value) -> Value:
    return normed(t, s, value) if s.scenario.model.norms_per_layer == 4 else value


def normed(t: Tape, s: Setting, value: Value) -> Value:
    """Consumes ``value``."""
    result = norm(t, s, value)
    t.drop(value)
    return result


def added(t: Tape, s: Setting, stream: Value, value: Value) -> Value:
    """The stream and what is added to it, which is consumed."""
    if s.scenario.model.family in DROPOUT:
        dropped = dropout(t, value)
        t.drop(value)
        value = dropped
    result = add(t, stream, value)
    t.drop(value)
    return result


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Bytes of one block, or of what comes after the blocks."""

    kept: Floats
    """From the forward until its backward, weight copies left out."""
    copies: Floats
    """Copies of weights, kept as long."""
    cached: Floats
    """The same copies where nothing is kept: autocast's, until the whole forward ends."""
    forward: Floats
    """Top of a forward that keeps, its input counted."""
    light: Floats
    """Top of a forward that keeps nothing, its input counted."""
    dropping: Floats
    """Top of a checkpointed block's first forward, its input counted."""
    backward: Floats
    """Top of the backward, with all that was kept and the gradient it begins with."""
    later: Floats
    """Top of the backward once its first matrix's gradient is there."""
    recomputed: Floats
    """Top of a checkpointed block's second forward and backward, its input and the gradient it begins with counted."""
    apart: Floats
    """The input, where what is kept does not include it."""


def profile(s: Setting, tokens: Floats, kind: Kind) -> Profile:
    return compiled_profile(s, tokens, kind) if compiles(s) else eager_profile(s, tokens, kind)


def compiles(s: Setting) -> bool:
    """Blocks that torch.compile makes one graph of, products of four-bit weights among it. Experts, whose numbers of tokens
    differ, latent attention and int8 were not followed: they are counted operation by operation."""
    model, followed = s.scenario.model, s.scenario.quantization != "int8"
    return s.compiled and followed and model.moe is None and model.mla is None


def compiled_block(s: Setting, tokens: Floats, kind: Kind) -> Compiled:
    """Sizes are of ``tokens``: figures, or one."""
    t = Operations(tokens)
    value = t.value(s.scenario.model.hidden_size, s.stream, needs_gradient=not kind.first)
    result = block(t, s, value, kind)
    return compiled(t.all, value, result, tokens, trains_norms=s.trained, activation=s.scenario.model.activation)


def compiled_profile(s: Setting, tokens: Floats, kind: Kind) -> Profile:
    """Autocast keeps no copies of weights for compiled code, whose graph makes its own. Gradients come when all of a block's are
    there, so that ``later`` is no other time."""
    made = compiled_block(s, tokens, kind)
    t, light = Tape(tokens), Tape(tokens, records=False)
    value = t.value(s.scenario.model.hidden_size, s.stream, needs_gradient=not kind.first)
    result = compiled_forward(t, made, value)
    forward = t.top
    t.drop(value)
    apart = 0.0 if made.keeps_entered else value.size
    kept = t.live - result.size
    gradient = t.allocate(result.size)
    t.drop(result)
    t.reset()
    t.backward(result, gradient)
    compiled_forward(light, made, light.value(s.scenario.model.hidden_size, s.stream))
    whole = np.zeros(len(tokens))
    return Profile(
        kept=kept - made.copies + whole,
        copies=made.copies + whole,
        cached=whole,
        forward=forward + whole,
        light=light.top + whole,
        dropping=forward + whole,  # a graph gives all that it keeps at its end, and a checkpoint lets go of it then
        backward=t.top + whole,
        later=t.top + whole,
        recomputed=np.maximum(forward + result.size, t.top + apart) + whole,
        apart=apart + whole,
    )


def eager_profile(s: Setting, tokens: Floats, kind: Kind) -> Profile:
    hidden = s.scenario.model.hidden_size
    t = Tape(tokens)
    value = t.value(hidden, s.stream, needs_gradient=not kind.first)
    result = block(t, s, value, kind)
    forward = t.top
    t.drop(value)
    apart = 0.0 if value.storage.references else value.size
    kept = t.live - result.size
    gradient = t.allocate(result.size)
    t.drop(result)
    t.reset()
    t.backward(result, gradient)
    # recomputing begins with the first tensor that is asked for, and stops with the last one (early_stop)
    waiting = result.size if t.live_at_first_use is None else t.live_at_first_use - kept
    again = t.top_of_saves + waiting
    light = Tape(tokens, records=False)
    value = light.value(hidden, s.stream)
    block(light, s, value, kind)
    whole = np.zeros(len(tokens))
    return Profile(
        kept=kept - t.copies + whole,
        copies=t.copies + whole,
        cached=light.cached + whole,
        forward=forward + whole,
        light=light.top + whole,
        dropping=light.top + whole,
        backward=t.top + whole,
        later=(t.top if t.top_after_product is None else t.top_after_product) + whole,
        recomputed=np.maximum(again, t.top + apart) + whole,
        apart=apart + whole,
    )
