"""From columns to Estimate objects, for the few rows that people read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np

from axoc.cost import flops
from axoc.cost.bands import memory_band, time_band
from axoc.cost.columns import Columns, Floats
from axoc.cost.exact import settle
from axoc.cost.host import HOST_PHASES
from axoc.cost.interruptions import SECONDS_PER_DAY
from axoc.cost.lengths import micro_batch_tokens
from axoc.cost.memory import MemoryColumns, memory
from axoc.cost.scenario import Scenario
from axoc.cost.time import TimeColumns, step_time
from axoc.cost.whole_run import ASSUMED, INTERRUPTIONS, interrupted_seconds, whole_run
from axoc.facts.failures import failure_rate, spot_failure_rate
from axoc.ir.estimate import Estimate, LedgerItem, MemoryEstimate, PhaseLedger, RunItem, TimeEstimate

SECONDS_PER_HOUR = 3600
DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class Costed:
    """A scenario's candidates with their costs."""

    scenario: Scenario
    columns: Columns
    memory: MemoryColumns
    time: TimeColumns
    run: dict[str, Floats]
    """Seconds of the whole run by item."""
    capacity_bytes: int
    """Device bytes a plan may use, before the safety margin."""

    def settle(self, row: int) -> None:
        """Makes the row's reserved memory that of a replay."""
        settle(self.variant(row), self.columns, self.memory, row)

    def variant(self, row: int) -> Scenario:
        """The scenario as this row runs it."""
        return self.scenario.variant(int(self.columns.variant[row]))

    def estimate(self, row: int) -> Estimate:
        sharded = bool(self.columns.uses("zero1", "zero2", "zero3", "fsdp")[row])
        band = memory_band(self.variant(row), sharded=sharded)
        return Estimate(
            memory=self._memory(row),
            time=self._time(row),
            memory_error_band=band.share,
            time_error_band=time_band(self.scenario, float(self.time.waits[row]), int(self.columns.world[row])),
            memory_error_rows=band.rows,
            memory_error_measured=band.measured,
        )

    def _memory(self, row: int) -> MemoryEstimate:
        m = self.memory
        phases = tuple(m.phases)
        peak = phases[int(m.phase[row])]
        items = _items(m.ledgers[peak], row)
        host_phase = HOST_PHASES[int(m.host.phase[row])]
        host, disk = _items(m.host.ledgers[host_phase], row), _items(m.disk, row)
        return MemoryEstimate(
            peak_allocated_bytes=sum(i.bytes for i in items),
            peak_reserved_bytes=round(float(m.reserved[row])),
            device_used_bytes=round(float(m.device_used[row])),
            capacity_bytes=self.capacity_bytes,
            peak_phase=peak,
            ledger=items,
            phases=tuple(LedgerItem(item=p, bytes=round(float(m.phases[p][row]))) for p in phases),
            host_bytes=sum(i.bytes for i in host),
            disk_bytes=sum(i.bytes for i in disk),
            host_phase=host_phase,
            host_ledger=host,
            disk_ledger=disk,
            by_phase=tuple(PhaseLedger(phase=p, items=_items(m.ledgers[p], row)) for p in phases),
            host_by_phase=tuple(
                PhaseLedger(phase=p, items=_items(m.host.ledgers[p], row)) for p in HOST_PHASES if m.host.ledgers[p]
            ),
        )

    def _time(self, row: int) -> TimeEstimate:
        steps, cluster = self.variant(row).steps, self.scenario.cluster
        total = None if steps is None else float(self.run_seconds()[row])
        world = int(self.columns.world[row])
        return TimeEstimate(
            step_seconds=steady(self.time.step_seconds[row]),
            breakdown=tuple((k, steady(v[row])) for k, v in self.time.breakdown.items() if v[row] > 0),
            tokens_per_second=steady(self.time.tokens_per_second[row]),
            mfu=steady(self.time.mfu[row]),
            padding_share=steady(self.time.padding_share[row]),
            batch_fill=steady(self._batch_fill(row)),
            row_lengths="" if self.scenario.lengths is None else self.scenario.lengths.source,
            total_steps=steps,
            total_seconds=None if total is None else steady(total),
            cost_usd=_dollars(total, world, cluster.price_usd_per_accelerator_hour),
            spot_cost_usd=_dollars(self._spot_seconds(row), world, cluster.spot_price_usd_per_accelerator_hour),
            failures_expected=steady(self._failures(row)),
            run_breakdown=tuple(
                RunItem(item=k, seconds=steady(v[row]), source=ASSUMED[k]) for k, v in self.run.items() if v[row] > 0
            ),
        )

    def _busy(self, row: int) -> float:
        """Seconds of the run that a failure can end."""
        return sum(float(self.run[i][row]) for i in ("training", "evaluation", "checkpoints") if i in self.run)

    def _failures(self, row: int) -> float:
        """Expected of the run, on demand."""
        if self.variant(row).steps is None:
            return 0.0
        lasts = self._busy(row) + float(self.run[INTERRUPTIONS][row])
        return lasts / SECONDS_PER_DAY * failure_rate(self.scenario.cluster).per_day

    def _spot_seconds(self, row: int) -> float | None:
        """The run where nodes are taken away, with the checkpoints as planned."""
        if self.variant(row).steps is None:
            return None
        one, step = self.columns.rows(np.array([row])), self.time.step_seconds[row : row + 1]
        rate = spot_failure_rate(self.scenario.cluster).per_day
        lost = interrupted_seconds(self.scenario, one, step, np.array([self._busy(row)]), rate)
        return float(self.run_seconds()[row] - self.run[INTERRUPTIONS][row] + lost[0])

    def _batch_fill(self, row: int) -> float:
        one = self.columns.rows(np.array([row]))
        expected = micro_batch_tokens(self.variant(row), one.of_one_variant())
        return float(expected[0] / flops.tokens(self.scenario, one)[0])

    def run_seconds(self) -> Floats:
        """Of the whole run, by row; where the number of steps is not known, of its start-up alone."""
        return cast(Floats, sum(self.run.values()))


def _dollars(total_seconds: float | None, world: int, usd_per_accelerator_hour: float | None) -> float | None:
    if total_seconds is None or usd_per_accelerator_hour is None:
        return None
    return steady(total_seconds / SECONDS_PER_HOUR * world * usd_per_accelerator_hour)


def steady(value: float) -> float:
    """To twelve digits: the last of a float's differ between processors, whose libraries add and raise to powers by other
    instructions, and a plan is to be the same bytes wherever it is made."""
    return float(f"{float(value):.{DIGITS}g}")


def _items(ledger: dict[str, Floats], row: int) -> tuple[LedgerItem, ...]:
    """One row of a ledger; what is nothing is left out."""
    items = (LedgerItem(item=k, bytes=round(float(v[row]))) for k, v in ledger.items())
    return tuple(i for i in items if i.bytes)


def cost(scenario: Scenario, columns: Columns, capacity_bytes: int) -> Costed:
    """All candidates of a scenario, costed at once."""
    time = step_time(scenario, columns)
    return Costed(
        scenario=scenario,
        columns=columns,
        memory=memory(scenario, columns),
        time=time,
        run=whole_run(scenario, columns, time.step_seconds),
        capacity_bytes=capacity_bytes,
    )
