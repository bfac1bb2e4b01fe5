"""How far one setting can be moved until a plan no longer fits: the same row, costed again at other values.

A setting that is a column is costed at all its values in one call; for another, values are bracketed. That is exact
because no term shrinks when a row grows longer or a rank higher; tests/cost/test_margin.py holds that against random plans.
Reserved bytes are taken to keep their share of the allocated ones; first_to_break.py replays where that is too coarse.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Final, cast

import numpy as np

from axoc.cost.columns import Bools, Columns, Floats
from axoc.cost.memory import MemoryColumns, memory
from axoc.cost.scenario import Scenario
from axoc.cost.sizes import trainable_parameters
from axoc.ir.margin import KnobMargin, KnobPoint

SEQUENCE_STEP: Final = 64
MOST_MICRO_BATCH: Final = 1024
"""Sequences; beyond it a step of one rank would be larger than the batches people train with."""


@dataclass(frozen=True, kw_only=True)
class Room:
    """What one rank's device and one node may be asked for, in bytes."""

    device_bytes: float
    host_bytes: float
    disk_bytes: float


@dataclass(frozen=True, kw_only=True)
class Knob:
    """A setting, the values it can take from the planned one on, ever harder, and the plan at some of them."""

    field: str
    label: str
    values: range
    """The first is the planned value."""
    at: Callable[[Sequence[int]], tuple[Scenario, Columns]]
    """A row for each of the values; of one value where the setting is the scenario's."""
    together: bool = False
    """Whether ``at`` takes more than one value."""
    drawn: bool = False
    """Whether its curve is kept, below the planned value and beyond the last that fits."""
    costed: dict[int, MemoryColumns] = dataclasses.field(default_factory=dict, compare=False)
    """By value: the same ones are asked for again and again, and compiled blocks are made anew for each."""

    def memory(self, values: Sequence[int]) -> MemoryColumns:
        """Not to be written to."""
        if self.together:
            return memory(*self.at(values))
        (value,) = values
        if value not in self.costed:
            self.costed[value] = memory(*self.at(values))
        return self.costed[value]


def knob_margins(
    scenario: Scenario, c: Columns, row: int, room: Room, reserved_share: float = 1.0
) -> tuple[KnobMargin, ...]:
    """For each setting that can be moved at all, in the order in which people think of them.

    ``reserved_share``: of reserved over allocated bytes in the plan as it is, which is taken to stay as high.
    """
    return tuple(_margin(knob, room, reserved_share) for knob in moved(scenario, c, row))


def moved(scenario: Scenario, c: Columns, row: int) -> list[Knob]:
    """The settings that have somewhere to go."""
    return [knob for knob in knobs(scenario, one_row(c, row)) if len(knob.values) > 1]


def one_row(c: Columns, row: int) -> Columns:
    return Columns(**{f.name: getattr(c, f.name)[row : row + 1] for f in fields(Columns)})


def fits(scenario: Scenario, c: Columns, room: Room, reserved_share: float = 1.0) -> Bools:
    """Of each row."""
    return over(memory(scenario, c), room, reserved_share) <= 0


def over(found: MemoryColumns, room: Room, reserved_share: float = 1.0) -> Floats:
    """Bytes by which each row misses the limit that it misses most; negative where it fits."""
    disk = cast(Floats, sum(found.disk.values()))
    missed = [
        used_bytes(found, reserved_share) - room.device_bytes,
        found.host.bytes - room.host_bytes,
        disk - room.disk_bytes,
    ]
    return cast(Floats, np.max(missed, axis=0))


def used_bytes(found: MemoryColumns, reserved_share: float = 1.0) -> Floats:
    return found.device_used + np.maximum(0.0, found.allocated * reserved_share - found.reserved)


def knobs(scenario: Scenario, one: Columns) -> Iterator[Knob]:
    """Sequence length up to the model's positions, micro-batch, the adapter's rank, ranks that share a model."""
    yield Knob(
        field="dataset.max_seq_length",
        label="sequence length",
        values=_from(scenario.seq_length, scenario.model.max_position_embeddings, SEQUENCE_STEP),
        at=lambda values: (replace(scenario, seq_length=values[0]), one),
        drawn=True,
    )
    yield Knob(
        field="training.micro_batch_size",
        label="micro-batch",
        values=_from(int(one.micro_batch[0]), MOST_MICRO_BATCH, 1),
        at=lambda values: (scenario, _with(one, values, micro_batch=values)),
        together=True,
    )
    if scenario.adapter is not None:
        yield Knob(
            field="adapter.rank",
            label="adapter's rank",
            values=_from(scenario.adapter.rank, scenario.model.hidden_size, 1),
            at=lambda values: (_with_rank(scenario, values[0]), one),
        )
    if bool(one.uses("zero1", "zero2", "zero3", "fsdp")[0]) and not scenario.on_cpu:
        yield Knob(
            field="distributed.gpu_count",
            label="accelerators",
            values=_worlds(scenario, one),
            at=lambda values: (scenario, _on_fewer(one, values)),
            together=True,
        )


def _from(value: int, most: int, step: int) -> range:
    """Steps from the value itself, so that the first is the plan as it is."""
    return range(value, max(value, most) + 1, step)


def _worlds(scenario: Scenario, one: Columns) -> range:
    """Fewer accelerators: whole nodes while there are several, then each number that the tensor-parallel degree divides."""
    world, tensor = int(one.world[0]), int(one.tensor_parallel[0])
    per_node = scenario.cluster.accelerators_per_node
    return range(world, 0, -per_node) if world > per_node else range(world, 0, -tensor)


def _on_fewer(one: Columns, worlds: Sequence[int]) -> Columns:
    """Copies of the model keep their shards, and are fewer; where that does not come out even there is one."""
    tensor, shards = int(one.tensor_parallel[0]), int(one.shard_degree[0])
    data = [world // tensor for world in worlds]
    copies = [max(1, d // shards) if d % shards == 0 else 1 for d in data]
    return _with(one, worlds, data_parallel=data, replicate_degree=copies)


def _with(one: Columns, values: Sequence[int], **changes: Sequence[int]) -> Columns:
    """The row once for each value, with one column changed."""
    repeated = {f.name: np.repeat(getattr(one, f.name), len(values)) for f in fields(Columns)}
    return Columns(**repeated | {name: np.array(column, dtype=np.int64) for name, column in changes.items()})


def _with_rank(scenario: Scenario, rank: int) -> Scenario:
    assert scenario.adapter is not None
    adapter = replace(scenario.adapter, rank=rank)
    return replace(scenario, adapter=adapter, trainable=trainable_parameters(scenario.model, adapter))


def _margin(knob: Knob, room: Room, reserved_share: float) -> KnobMargin:
    said = told(knob, first_broken(knob, room, reserved_share, 0, len(knob.values)))
    return replace(said, curve=curve(knob, said.fits_to, reserved_share))


def told(knob: Knob, broken: int) -> KnobMargin:
    """``broken``: index of the first value that does not fit; the number of values where all do."""
    return KnobMargin(
        field=knob.field,
        label=knob.label,
        value=knob.values[0],
        fits_to=knob.values[broken - 1],
        breaks_at=knob.values[broken] if broken < len(knob.values) else None,
    )


def first_broken(knob: Knob, room: Room, reserved_share: float, low: int, high: int) -> int:
    """Index of the first value that does not fit, between ``low``, which does, and ``high``, which is taken not to."""

    def missed(*indices: int) -> Floats:
        return over(knob.memory([knob.values[i] for i in indices]), room, reserved_share)

    if high - low < 2:
        return high
    if knob.together:
        broken = np.flatnonzero(missed(*range(low + 1, high)) > 0)
        return low + 1 + int(broken[0]) if broken.size else high
    return _bracketed(lambda index: float(missed(index)[0]), low, high)


def curve(knob: Knob, fits_to: int, reserved_share: float) -> tuple[KnobPoint, ...]:
    """From a quarter of the planned value to half beyond the last that fits, no further than the setting goes."""
    if not knob.drawn:
        return ()
    planned, most = knob.values[0], knob.values[-1]
    beyond = min(most, fits_to + fits_to // 2)
    middle = (planned + fits_to) // 2
    values = sorted({max(1, planned // 4), max(1, planned // 2), planned, middle, fits_to, beyond})

    def used(value: int) -> int:
        return round(float(used_bytes(knob.memory([value]), reserved_share)[0]))

    return tuple(KnobPoint(value=v, device_used_bytes=used(v)) for v in values)


def _bracketed(missed: Callable[[int], float], low: int, high: int) -> int:
    """After a value that does not fit, none does. Tried is where a straight line through both ends crosses the limit, and the
    middle, by turns: bytes grow almost so with a rank, and hardly faster with a row."""
    if (beyond := missed(high - 1)) <= 0:
        return high
    high, below, straight = high - 1, missed(low), True
    while high - low > 1:
        share = below / (below - beyond) if straight and math.isfinite(below) and below < 0 else 0.5
        middle = low + min(high - low - 1, max(1, int((high - low) * share)))
        found, straight = missed(middle), not straight
        if found <= 0:
            low, below = middle, found
        else:
            high, beyond = middle, found
    return high
