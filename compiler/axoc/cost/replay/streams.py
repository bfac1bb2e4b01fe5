"""What collectives need beside the replayed tensors. Memory that is free on one stream serves no other, so that each stream
reserves its own peak, whichever phase that is in (c10/cuda/CUDACachingAllocator.cpp: blocks belong to a stream)."""

from __future__ import annotations

from axoc.cost import states
from axoc.cost.columns import Columns
from axoc.cost.ledger import ledgers
from axoc.cost.live import Ledger
from axoc.cost.scenario import Scenario


def other_pools(scenario: Scenario, c: Columns, beside: int) -> list[float]:
    """Bytes of each, of one candidate. ``beside``: by how much the closed form's peak is above the replayed one, where it is
    all there is to know."""
    phases = list(ledgers(scenario, c).values())
    if bool(c.uses("zero3")[0]):
        return zero_3(scenario, phases)
    return [float(beside)]


def zero_3(scenario: Scenario, phases: list[Ledger]) -> list[float]:
    """Weights are gathered on one stream, and buckets copied to be reduced on another (overlap_comm, as emitted)."""
    return [max(float(p["gathered weights"][0]) for p in phases), states.bucket_bytes(scenario)]
