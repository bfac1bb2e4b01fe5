"""Saved activations and what lives at the top of a block's forward and backward, for every candidate at once.

The counting itself is on tapes: blocks.py and head.py. Here stand the dtypes they are run with, and the sums over blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from axoc.cost import blocks, head, lengths, states
from axoc.cost.blocks import Profile
from axoc.cost.columns import Bools, Columns, Floats, Ints
from axoc.cost.distinct import distinct
from axoc.cost.layers import FP32, Setting
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


_Groups = list[list[tuple[float, Profile]]]


@dataclass(frozen=True)
class _Tapes:
    """What was read off the tapes: a profile for each kind of block, group by group, and one for the tail."""

    groups: _Groups
    """How many blocks, and one of them."""
    tail: Profile
    masks: Floats


def activations(scenario: Scenario, c: Columns, tokens: Floats) -> Activations:
    """Of all candidates. Those alike in all that a tape depends on are followed once."""
    index, places = distinct(_gradient_bytes(scenario, c), module_kind(c), c.micro_batch, c.tensor_parallel, c.variant)
    few = c.rows(index)
    known: dict[tuple[object, ...], _Groups] = {}
    parts = [
        (rows, _tapes(variant, few.rows(rows).of_one_variant(), tokens[index][rows], known))
        for variant, rows in programs(scenario, few, module_kind(few))
    ]
    stream = np.where(c.deepspeed | c.uses("fsdp"), *(_stream_bytes(scenario, low) for low in (True, False)))
    entry = cast(Floats, scenario.model.hidden_size * stream * tokens)
    return _summed(scenario, c, _placed(parts, len(few), places), entry)


def programs(scenario: Scenario, c: Columns, module: Ints | Bools) -> Iterator[tuple[Scenario, Bools]]:
    """Rows that run the same program, with their variant of the scenario. ``module``: kinds of precision; DeepSpeed and
    FSDP2 compute in a low-precision module. Rows that are padded get masks beside it."""
    if not len(c):  # no split of the batch is possible
        yield scenario.variant(0), np.ones(0, dtype=np.bool_)
        return
    for index in range(max(1, len(scenario.variants))):
        variant, own = scenario.variant(index), c.variant == index
        kinds = 2 * module + lengths.is_padded(variant, c)
        for kind in sorted(set(kinds[own].tolist())):
            yield variant, own & (kinds == kind)


def module_kind(c: Columns) -> Ints:
    """0: the model as it is; 1: FSDP2's, in the compute dtype; 2: DeepSpeed's, adapters and all; 3: ZeRO-3's, whose linear
    layers are its own."""
    return cast(Ints, np.where(c.deepspeed, 2 + c.uses("zero3"), np.where(c.uses("fsdp"), 1, 0)))


def _placed(parts: list[tuple[Bools, _Tapes]], length: int, places: Ints) -> _Tapes:
    """The parts of ``length`` rows put together, then given to every candidate."""

    def place(values: list[Floats]) -> Floats:
        whole = np.empty(length)
        for (rows, _), value in zip(parts, values, strict=True):
            whole[rows] = value
        return cast(Floats, whole[places])

    def profile(made: list[Profile]) -> Profile:
        return Profile(**{f: place([getattr(p, f) for p in made]) for f in Profile.__dataclass_fields__})

    tapes = [tape for _, tape in parts]
    groups = [
        [(kinds[0][0], profile([p for _, p in kinds])) for kinds in zip(*together, strict=True)]
        for together in zip(*(tape.groups for tape in tapes), strict=True)
    ]
    return _Tapes(groups, profile([t.tail for t in tapes]), place([t.masks for t in tapes]))


def _summed(scenario: Scenario, c: Columns, tapes: _Tapes, entry: Floats) -> Activations:
    """Over the blocks, of which the first ones are checkpointed."""
    plain, copies, cached = np.zeros(len(c)), np.zeros(len(c)), np.zeros(len(c))
    begin = 0.0
    for group in tapes.groups:
        total = sum(count for count, _ in group)
        kept = 1.0 - np.clip((c.checkpointed_layers - begin) / total, 0.0, 1.0)
        begin += total
        for count, one in group:
            plain += count * one.kept * kept
            copies += count * one.copies * kept
            cached += count * one.cached
    return Activations(
        plain=plain,
        entries=entry * c.checkpointed_layers,
        copies=copies,
        forward_copies=copies + cached * c.checkpointed_layers / scenario.model.num_layers,
        light_copies=cached + tapes.tail.cached,
        masks=tapes.masks,
        gradient=entry,
        largest=_largest([one for group in tapes.groups for _, one in group]),
        tail=tapes.tail,
    )


def _tapes(scenario: Scenario, c: Columns, tokens: Floats, known: dict[tuple[object, ...], _Groups]) -> _Tapes:
    """``known``: blocks that were followed for another variant, which differs in its loss alone."""
    s = setting(scenario, c)
    sizes = (tokens, s.tensor_parallel, s.gradient_bytes)
    key = (*scenario.program_of_blocks, s.stream, s.autocast, s.adapter, s.folded, *(a.tobytes() for a in sizes))
    if key not in known:
        known[key] = [
            [(kind.count, blocks.profile(s, tokens, kind)) for kind in group] for group in blocks.groups(scenario)
        ]
    return _Tapes(known[key], head.tail(s, tokens), masks(s, tokens))


def _stream_bytes(scenario: Scenario, low: bool) -> float:
    """Of an element of the residual stream, and of a weight that is no matrix product's."""
    if scenario.quantized:  # raised by k-bit preparation
        return 4.0
    return float(scenario.compute_bytes) if low else float(scenario.weight_bytes)


def _gradient_bytes(scenario: Scenario, c: Columns) -> Floats:
    """Of one trained weight once its gradient stays until the block's backward is over; 0 where it is added to one that is
    there, or goes into a bucket. FSDP2 reduces a block's gradients together, at the end."""
    carried = (c.accumulation > 1) | c.uses("zero2", "zero3")
    size = states.whole_gradient_bytes(scenario, c)
    return cast(Floats, np.where(carried & ~c.uses("fsdp"), 0.0, size))


def _adapter_bytes(scenario: Scenario, c: Columns) -> float:
    """Of an adapter's weight as it is computed with: float32, but for DeepSpeed's module and FSDP2's mixed precision."""
    if bool(c.deepspeed.any()):
        return states.module_bytes(scenario)
    lowered = bool(c.uses("fsdp").any()) and not scenario.quantized
    return float(scenario.compute_bytes) if lowered else FP32


def setting(scenario: Scenario, c: Columns) -> Setting:
    """Of rows that run one program."""
    low = bool((c.deepspeed | c.uses("fsdp")).any())
    stream, adapter = _stream_bytes(scenario, low), scenario.adapter
    return Setting(
        scenario=scenario,
        stream=stream,
        compute=float(scenario.compute_bytes),
        weight=stream,
        autocast=not low and scenario.mixed_precision != "no",
        targets=frozenset() if adapter is None else blocks.target_paths(scenario.model, adapter.targets),
        expert_targets=frozenset() if adapter is None else blocks.expert_names(scenario.model, adapter.targets),
        tensor_parallel=c.tensor_parallel.astype(np.float64),
        gradient_bytes=_gradient_bytes(scenario, c),
        adapter=_adapter_bytes(scenario, c),
        padded=bool(np.any(lengths.is_padded(scenario, c))),
        folded=not c.uses("zero3").any(),
    )


def timed_setting(scenario: Scenario, c: Columns) -> Setting:
    """The same for the batch to be expected, where rows are not all full."""
    return replace(setting(scenario, c), attended=lengths.attended(scenario, c))


def masks(s: Setting, tokens: Floats) -> Floats:
    """Eager attention adds one in the stream's dtype for each row of the batch; fused kernels take a boolean one for all
    rows, where a window is shorter than they are, and for each row where some are padded. A model whose blocks alternate
    has one of each kind (transformers/masking_utils.py)."""
    scenario, model = s.scenario, s.scenario.model
    seq = float(scenario.seq_length)
    alternate = 0 < model.sliding_window_layers < model.num_layers
    if scenario.attention == "eager":
        return tokens * seq * s.stream * (2.0 if alternate else 1.0)
    if scenario.by_document:
        return np.zeros(len(tokens))
    if s.padded:
        return tokens * seq * (2.0 if alternate else 1.0)
    return np.full(len(tokens), seq * seq if blocks.has_short_window(scenario) or model.family == "falcon" else 0.0)


def _largest(profiles: list[Profile]) -> Profile:
    fields = Profile.__dataclass_fields__
    return Profile(**{f: np.max([getattr(p, f) for p in profiles], axis=0) for f in fields})
