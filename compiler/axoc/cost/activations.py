"""Saved activations and what lives at the top of a block's forward and backward, for every candidate at once.

The counting itself is on tapes: blocks.py and head.py. Here stand the dtypes they are run with, and the sums over blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from axoc.cost import blocks, head, states
from axoc.cost.blocks import Profile
from axoc.cost.columns import Bools, Columns, Floats
from axoc.cost.layers import Setting
from axoc.cost.scenario import Scenario


@dataclass(frozen=True, kw_only=True)
class Activations:
    """Bytes, one row a candidate. "Blocks" are counted with the last one at the top."""

    plain: Floats
    """Kept by all blocks that are not checkpointed."""
    entries: Floats
    """Kept of those that are: their inputs."""
    copies: Floats
    """Autocast's copies of weights kept by the plain blocks until their backward."""
    forward_copies: Floats
    """All copies at the end of a forward: also those that its cache keeps of checkpointed blocks."""
    light_copies: Floats
    """Of a forward that keeps nothing, such as an evaluation's: autocast's cache of all trained weights."""
    masks: Floats
    """Attention masks, made once for all blocks."""
    gradient: Floats
    """Of the stream, which each block's backward begins with."""
    largest: Profile
    """Of one block; where blocks differ, the most of each figure."""
    tail: Profile
    """Of what comes after the blocks."""


def activations(scenario: Scenario, c: Columns, tokens: Floats) -> Activations:
    """DeepSpeed and FSDP2 compute in a low-precision module: another dtype than the rest, so apart."""
    low = c.deepspeed | c.uses("fsdp")
    parts = [(rows, _alike(scenario, c.rows(rows), tokens[rows])) for rows in (low, ~low) if rows.any()]
    if len(parts) == 1:
        return parts[0][1]
    return _merged(parts, len(c))


def _merged(parts: list[tuple[Bools, Activations]], length: int) -> Activations:
    def merge(values: list[Floats]) -> Floats:
        whole = np.zeros(length)
        for (rows, _), value in zip(parts, values, strict=True):
            whole[rows] = value
        return whole

    def profiles(name: str) -> Profile:
        made = [getattr(part, name) for _, part in parts]
        return Profile(**{f: merge([getattr(p, f) for p in made]) for f in Profile.__dataclass_fields__})

    floats = [f for f in Activations.__dataclass_fields__ if f not in ("largest", "tail")]
    flat = {f: merge([getattr(part, f) for _, part in parts]) for f in floats}
    return Activations(**flat, largest=profiles("largest"), tail=profiles("tail"))


def setting(scenario: Scenario, c: Columns) -> Setting:
    """Of rows that are all low-precision modules, or none of them."""
    compute = float(scenario.compute_bytes)
    low = bool((c.deepspeed | c.uses("fsdp")).any())
    weight = 4.0 if scenario.quantized else float(scenario.weight_bytes)
    stream = compute if low and not scenario.quantized else weight
    adapter = scenario.adapter
    carried = (c.accumulation > 1) | states.held_from_start(c)
    share = states.gradients(scenario, c) / max(1.0, states.trained_bytes(scenario))
    return Setting(
        scenario=scenario,
        stream=stream,
        compute=compute,
        weight=stream,
        autocast=not low and scenario.mixed_precision != "no",
        targets=frozenset() if adapter is None else blocks.target_paths(scenario.model, adapter.targets),
        expert_targets=frozenset() if adapter is None else blocks.expert_names(scenario.model, adapter.targets),
        tensor_parallel=c.tensor_parallel.astype(np.float64),
        gradient_bytes=np.where(carried, 0.0, share * scenario.trainable_bytes),
    )


def _alike(scenario: Scenario, c: Columns, tokens: Floats) -> Activations:
    s = setting(scenario, c)
    plain, copies, cached, profiles = np.zeros(len(c)), np.zeros(len(c)), np.zeros(len(c)), []
    begin = 0.0
    for group in blocks.groups(scenario):
        count = sum(kind.count for kind in group)
        recomputed = np.clip((c.checkpointed_layers - begin) / count, 0.0, 1.0)  # the first blocks are checkpointed
        begin += count
        for kind in group:
            one = blocks.profile(s, tokens, kind)
            plain += kind.count * one.kept * (1 - recomputed)
            copies += kind.count * one.copies * (1 - recomputed)
            cached += kind.count * one.cached
            profiles.append(one)
    tail = head.tail(s, tokens)
    entry = scenario.model.hidden_size * s.stream * tokens
    return Activations(
        plain=plain,
        entries=entry * c.checkpointed_layers,
        copies=copies,
        forward_copies=copies + cached * c.checkpointed_layers / scenario.model.num_layers,
        light_copies=cached + tail.cached,
        masks=masks(s, tokens),
        gradient=entry,
        largest=_largest(profiles),
        tail=tail,
    )


def masks(s: Setting, tokens: Floats) -> Floats:
    """Eager attention adds one in the stream's dtype for each row of the batch; fused kernels take a boolean one for all
    rows, where a window is shorter than they are. A model whose blocks alternate has one of each kind
    (transformers/masking_utils.py)."""
    scenario, model = s.scenario, s.scenario.model
    seq = float(scenario.seq_length)
    alternate = 0 < model.sliding_window_layers < model.num_layers
    if scenario.attention == "eager":
        return tokens * seq * s.stream * (2.0 if alternate else 1.0)
    short = model.sliding_window is not None and model.sliding_window < seq
    return np.full(len(tokens), seq * seq if short or model.family == "falcon" else 0.0)


def _largest(profiles: list[Profile]) -> Profile:
    fields = Profile.__dataclass_fields__
    return Profile(**{f: np.max([getattr(p, f) for p in profiles], axis=0) for f in fields})
