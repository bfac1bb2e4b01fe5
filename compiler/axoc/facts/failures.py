"""How often a run is ended by its hardware, or by who rents it out: rates a day, each with its source."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final, cast

from axoc.ir.facts import ClusterFacts

DAYS_A_MONTH: Final = 30.0
OWN: Final = "as the inventory says"


@dataclass(frozen=True, kw_only=True)
class FailureRate:
    per_day: float
    """Of the whole cluster; a failure of one node ends the run everywhere."""
    source: str


def failure_rate(cluster: ClusterFacts) -> FailureRate:
    """Of hardware and what runs on it. A CPU cluster has none that is known."""
    if cluster.failures_per_node_day is not None:
        return FailureRate(per_day=cluster.failures_per_node_day * cluster.nodes, source=OWN)
    if cluster.accelerator.vendor == "cpu":
        return FailureRate(per_day=0.0, source="none known of CPUs")
    known = _read()["per_accelerator_day"]
    return FailureRate(per_day=known["rate"] * cluster.world_size, source=known["source"])


def spot_failure_rate(cluster: ClusterFacts) -> FailureRate:
    """The same where nodes may be taken away as well."""
    if cluster.spot_failures_per_node_day is not None:
        return FailureRate(per_day=cluster.spot_failures_per_node_day * cluster.nodes, source=OWN)
    known, own = _read()["spot_reclaimed_a_month"], failure_rate(cluster)
    share = known.get(cluster.accelerator.name, known["default"])
    reclaimed = -math.log(1.0 - share) / DAYS_A_MONTH * cluster.nodes
    return FailureRate(
        per_day=own.per_day + reclaimed, source=f"{own.source}; {share:.0%} of nodes a month: {known['source']}"
    )


@cache
def _read() -> dict[str, Any]:
    text = files("axoc.facts").joinpath("data", "failures.json").read_text(encoding="utf-8")
    return cast("dict[str, Any]", json.loads(text))
