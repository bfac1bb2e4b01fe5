"""Limits of a node beside its devices: host memory and disk. What is known is kept; what is only usual is preferred."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from axoc.ir.estimate import MemoryEstimate
from axoc.ir.facts import ClusterFacts
from axoc.units import gib

if TYPE_CHECKING:
    from axoc.search.passes import Pass

MUCH_HOST_BYTES = 200e9
"""Above it a need is said, though it is met: fewer machines have it than have the accelerators."""
HOST_FIX = (
    "a strategy without offload, a smaller trained part (an adapter), fewer ranks a node, or a node with more memory: "
    "host_memory_gb of an inventory file"
)
DISK_FIX = "free space or a larger disk (disk_gb of an inventory file), save_steps that save less often, or an adapter"


@dataclass(frozen=True, kw_only=True)
class NodeLimits:
    """Bytes of one node; infinite where nothing is known or what is usual has been set aside."""

    host_bytes: float = math.inf
    disk_bytes: float = math.inf
    host_is_usual: bool = False
    """The inventory does not say: what such nodes usually have."""
    host_is_least_need: bool = False
    """No candidate stays within what is usual: what the one that needs least does."""


def node_limits(cluster: ClusterFacts) -> NodeLimits:
    disk = math.inf if cluster.disk_bytes is None else float(cluster.disk_bytes)
    usual = not cluster.host_memory_given and cluster.accelerator.vendor != "cpu"  # a CPU's memory is the device's own
    return NodeLimits(host_bytes=cluster.host_memory_bytes, disk_bytes=disk, host_is_usual=usual)


def beyond_usual_if_nothing_else(passes: list[Pass]) -> list[Pass]:
    """Where no candidate stays within what such nodes usually have, the limit is the least that any of them needs: the
    plan then warns of it, and none that needs yet more is chosen for being faster."""
    guessed = [p for p in passes if p.limits.host_is_usual]
    needs = [_least_host_bytes(p) for p in guessed]
    if any(p.fits().any() for p in passes) or min(needs, default=math.inf) == math.inf:
        return passes
    return [_with_host(p, min(needs), least_need=True) if p.limits.host_is_usual else p for p in passes]


def _least_host_bytes(found: Pass) -> float:
    """Of the rows that only the host's memory stands in the way of; infinite where there are none."""
    otherwise = _with_host(found, math.inf).fits()
    return float(found.costed.memory.host.bytes[otherwise].min(initial=math.inf))


def _with_host(found: Pass, host_bytes: float, *, least_need: bool = False) -> Pass:
    return replace(found, limits=replace(found.limits, host_bytes=host_bytes, host_is_least_need=least_need))


def host_warnings(cluster: ClusterFacts, memory: MemoryEstimate) -> tuple[str, ...]:
    """Where the inventory does not say how much there is: a need that is much, or above what is usual."""
    if cluster.accelerator.vendor == "cpu" or cluster.host_memory_given or memory.host_bytes < MUCH_HOST_BYTES:
        return ()
    need, usual = gib(memory.host_bytes), gib(cluster.host_memory_bytes)
    if memory.host_bytes > cluster.host_memory_bytes:
        return (
            f"the run needs {need} of host memory on each node, where such nodes usually have {usual}: nothing else fits; "
            "give host_memory_gb in an inventory file to have it checked",
        )
    return (f"the run needs {need} of host memory on each node, of the {usual} that such nodes usually have",)


def host_reason(memory: MemoryEstimate, limits: NodeLimits) -> str:
    """What takes most, and by how much it is too much."""
    largest = max(memory.host_ledger, key=lambda item: item.bytes)
    there = "than such nodes usually have" if limits.host_is_usual else "than there is"
    if limits.host_is_least_need:
        there = "than the plan that needs least of it"
    return (
        f"needs {gib(memory.host_bytes)} of host memory on each node, {gib(memory.host_bytes - limits.host_bytes)} more "
        f"{there} ({gib(limits.host_bytes)}), most of all in {memory.host_phase} for {largest.item} ({gib(largest.bytes)})"
    )


def disk_reason(memory: MemoryEstimate, limits: NodeLimits) -> str:
    largest = max(memory.disk_ledger, key=lambda item: item.bytes)
    return (
        f"needs {gib(memory.disk_bytes)} of disk on each node, {gib(memory.disk_bytes - limits.disk_bytes)} more than "
        f"there is ({gib(limits.disk_bytes)}), most of all for {largest.item} ({gib(largest.bytes)})"
    )
