"""The objective: one figure for each row, smaller is better, by which plans are ranked.

Candidates of different global batches, or packed and not, are compared at equal work, so figures are of one trained row of the
data, its share of start-up, evaluation and checkpoints included. Where the number of steps is not known, only the step counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast

import numpy as np

from axoc.cost.columns import Bools, Floats
from axoc.cost.lengths import rows_per_sequence
from axoc.errors import Diagnostic, UserError
from axoc.ir.request import AUTO, PlanRequest
from axoc.search.passes import Pass

SECONDS_PER_HOUR: Final = 3600.0
TIE_SHARE: Final = 0.03
"""Of the predicted training: two plans closer than this are not told apart by the time model."""


@dataclass(frozen=True, kw_only=True)
class Objective:
    kind: str
    """time | cost | trade-off"""
    usd_per_hour: float | None
    """What an hour less is worth, for a trade-off."""
    priced: bool
    """A price is known for every kind; else an accelerator's hour stands for a dollar, whatever the kind."""
    why: str

    def of(self, found: Pass) -> Floats:
        """Seconds or dollars of a trained sequence, by row."""
        return self._weighed(found, seconds(found))

    def slack(self, found: Pass) -> Floats:
        """By how much another row may be worse and still count as equal."""
        return TIE_SHARE * self._weighed(found, found.costed.time.step_seconds / rows_a_step(found))

    def dollars(self, found: Pass) -> Floats:
        """Of a trained sequence, by row."""
        return self._dollars(found, seconds(found))

    def _dollars(self, found: Pass, taken: Floats) -> Floats:
        price = found.costed.scenario.cluster.price_usd_per_accelerator_hour if self.priced else 1.0
        return cast(Floats, taken / SECONDS_PER_HOUR * (price or 0.0) * found.costed.columns.world)

    def _weighed(self, found: Pass, taken: Floats) -> Floats:
        if self.kind == "time":
            return taken
        waiting = (self.usd_per_hour or 0.0) * taken / SECONDS_PER_HOUR
        return self._dollars(found, taken) + waiting


def objective(request: PlanRequest, passes: Sequence[Pass]) -> Objective:
    """As the policy says; ``auto`` is time, and cost where there are several kinds. Raises UserError for a trade-off
    between hours and dollars where no price is known."""
    clusters = [p.costed.scenario.cluster for p in passes]
    unpriced = sorted({c.accelerator.name for c in clusters if c.price_usd_per_accelerator_hour is None})
    kind, why = request.policy.objective, "set in the spec"
    if kind == AUTO:
        several = len({c.label for c in clusters}) > 1
        kind = "cost" if several else "time"
        why = (
            "several kinds of hardware can do the same work: the cheapest comes first"
            if several
            else "one kind of hardware: each costs the same an hour, so the fastest is the cheapest too"
        )
    if kind == "trade-off" and unpriced:
        raise UserError(_no_price(unpriced[0]))
    return Objective(kind=kind, usd_per_hour=request.policy.usd_per_hour, priced=not unpriced, why=why)


def seconds(found: Pass) -> Floats:
    """Of a trained row of the data, by candidate."""
    if found.costed.scenario.steps is None:
        return found.costed.time.step_seconds / rows_a_step(found)
    steps = found.costed.scenario.each(found.costed.columns, lambda s: s.steps or 0)
    return found.costed.run_seconds() / (steps * rows_a_step(found))


def rows_a_step(found: Pass) -> Floats:
    """Of the data: several in each sequence where they are packed."""
    return found.total * found.costed.scenario.each(found.costed.columns, rows_per_sequence)


def within_policy(request: PlanRequest, found: Pass) -> Bools:
    """Rows that keep max_hours and max_cost_usd as far as is known. Others come last, so that none is chosen in vain."""
    kept, policy = np.ones(len(found.combinations), dtype=np.bool_), request.policy
    if found.costed.scenario.steps is None:
        return kept
    hours = found.costed.run_seconds() / SECONDS_PER_HOUR
    price = found.costed.scenario.cluster.price_usd_per_accelerator_hour
    if policy.max_hours is not None:
        kept &= hours <= policy.max_hours
    if policy.max_cost_usd is not None and price is not None:
        kept &= hours * price * found.costed.columns.world <= policy.max_cost_usd
    return kept


def _no_price(name: str) -> Diagnostic:
    return Diagnostic(
        message=f"policy.objective weighs hours against dollars, but no price is known for {name}",
        fix="give price_per_hour_usd in an inventory file, or set policy.objective: time",
    )
