"""What collectives need beside the replayed tensors. Memory that is free on one stream serves no other, so that each stream
reserves its own peak, whichever phase that is in (c10/cuda/CUDACachingAllocator.cpp: blocks belong to a stream)."""

from __future__ import annotations

from axoc.cost import split, states
from axoc.cost.collectives import collectives
from axoc.cost.columns import Columns
from axoc.cost.ledger import Ledger, ledgers
from axoc.cost.scenario import Scenario


def other_pools(scenario: Scenario, c: Columns, beside: int, replayed_bytes: int) -> list[float]:
    """Bytes of each, of one candidate. ``beside``: by how much the closed form's peak is above the replayed one, where it is
    all there is to know."""
    phases = list(ledgers(scenario, c).values())
    if bool(c.uses("zero3")[0]):
        return zero_3(scenario, phases)
    if bool(c.uses("fsdp")[0]) and int(c.shard_degree[0]) > 1:
        return fsdp(scenario, c, phases, replayed_bytes)
    return [float(beside)]


def zero_3(scenario: Scenario, phases: list[Ledger]) -> list[float]:
    """Weights are gathered on one stream, and buckets copied to be reduced on another (overlap_comm, as emitted)."""
    return [max(float(p["gathered weights"][0]) for p in phases), states.bucket_bytes(scenario)]


def fsdp(scenario: Scenario, c: Columns, phases: list[Ledger], replayed_bytes: int) -> list[float]:
    """Gathers' flat outputs are on a stream of their own: the embedding's, in whose place no larger block's fits, then two
    of blocks at a time. Of what is gathered they are about half; the rest lies with all else."""
    shared, element = collectives(scenario, c), float(scenario.compute_bytes)
    first = (
        float((split.embedding(scenario, c) + (0 if scenario.sizes.lm_head else split.head(scenario, c)))[0]) * element
    )
    block = float(shared.in_flight[0])
    flat = first + block * (2.0 if block > first else 1.0)
    most = max(sum(float(v[0]) for v in p.values()) - float(p["gathered weights"][0]) / 2 for p in phases)
    return [flat, max(0.0, most - replayed_bytes)]
