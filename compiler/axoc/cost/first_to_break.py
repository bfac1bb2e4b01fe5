"""The setting that breaks a plan first, as the planner itself would say: both values that the margin names are replayed.

The quick account of margin.py takes reserved bytes for a fixed share of the allocated ones. A replay finds another share at
another length, by a percent or so, and more of a CPU's heap: enough to name a value that the planner then refuses.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Final

from axoc.cost.columns import Columns
from axoc.cost.exact import settle
from axoc.cost.margin import Knob, Room, curve, first_broken, moved, over, told
from axoc.cost.scenario import Scenario
from axoc.ir.margin import KnobMargin, first_to_break

STRAIGHT: Final = 6
"""Replays that follow the quick account; further ones halve what is left."""


def settled_margins(
    scenario: Scenario, c: Columns, row: int, room: Room, reserved_share: float
) -> tuple[KnobMargin, ...]:
    """knob_margins, in which what is said of the first to break is by replays; the others stay by the quick account."""
    by_field = {knob.field: knob for knob in moved(scenario, c, row)}
    settled: dict[str, _Replays] = {}
    margins = [told(knob, first_broken(knob, room, reserved_share, 0, len(knob.values))) for knob in by_field.values()]
    while (first := first_to_break(margins)) is not None and first.field not in settled:
        settled[first.field] = found = _Replays(by_field[first.field], room)
        margins[margins.index(first)] = found.margin(first)
    return tuple(_with_curve(by_field[m.field], m, reserved_share, settled.get(m.field)) for m in margins)


def _with_curve(knob: Knob, said: KnobMargin, reserved_share: float, replays: _Replays | None) -> KnobMargin:
    replayed = {} if replays is None else replays.used
    points = curve(knob, said.fits_to, reserved_share)
    return replace(
        said,
        curve=tuple(replace(p, device_used_bytes=replayed.get(p.value, p.device_used_bytes)) for p in points),
    )


@dataclass
class _Replays:
    """Of one setting."""

    knob: Knob
    room: Room
    used: dict[int, int] = field(default_factory=dict)
    """Device bytes by value."""

    def margin(self, quick: KnobMargin) -> KnobMargin:
        assert quick.breaks_at is not None
        values = self.knob.values
        low, high, broken = 0, len(values), values.index(quick.breaks_at)
        while high - low > 1:
            guess = broken - 1 if broken - 1 > low else broken
            tried = (low + high) // 2 if len(self.used) >= STRAIGHT else guess
            holds, share = self._replayed(tried)
            low, high = (tried, high) if holds else (low, tried)
            broken = first_broken(self.knob, self.room, share, low, high)
        return told(self.knob, high)

    def _replayed(self, index: int) -> tuple[bool, float]:
        """Whether it fits, and the share of reserved over allocated bytes."""
        value = self.knob.values[index]
        found = deepcopy(self.knob.memory([value]))
        settle(*self.knob.at([value]), found, 0)
        self.used[value] = round(float(found.device_used[0]))
        return bool(over(found, self.room)[0] <= 0), float(found.reserved[0] / found.allocated[0])
