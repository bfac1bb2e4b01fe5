"""How fast links and ranks are, against the plan and against one another; which of them is the slow one.

Bus bandwidth as nccl-tests define it (doc/PERFORMANCE.md there): bytes over seconds times 2 (n - 1) / n for an all-reduce over n
ranks. It is what each link carries in a ring, so it is held against what the plan counts on for one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from statistics import median_high, median_low
from typing import Any, Final

from axoc_runtime.errors import EXIT_NETWORK, EXIT_SLOW
from axoc_runtime.hosts.meeting import Meeting
from axoc_runtime.job import Job
from axoc_runtime.preflight.finding import WARNING, Finding

MEASURED_VARIABLE: Final = "AXOC_MEASURED"
"""Holds the path of a rank's answer."""
SLOW_VARIABLE: Final = "AXOC_PREFLIGHT_SLOW"
"""``fail`` | ``warn`` | ``off``: nothing is measured."""
LINK_SHARE: Final = 0.5
"""Of what the plan counts on. The plan's own rates differ from measured ones by tenths; half is another kind of link: Ethernet
in place of InfiniBand, PCIe in place of NVLink, one adapter of several. Steps would then take up to twice as long as paid for."""
STRAGGLER: Final = {"cuda": 1.5, "cpu": 3.0}
"""Times the median. Every rank waits for the slowest; devices of one kind differ by a few hundredths, and processes that share
the cores of a CPU by a factor of two."""

Link = tuple[int, int]
"""From node, to node."""


def policy(job: Job) -> str:
    """On accelerators what is slow fails, before it is paid for. CPUs share cores with whatever else runs: a warning."""
    chosen = os.environ.get(SLOW_VARIABLE, "")
    return chosen if chosen in ("fail", "warn", "off") else "warn" if job.distributed.device == "cpu" else "fail"


def bus_share(ranks: int) -> float:
    return 2 * (ranks - 1) / ranks


def hops(nodes: int) -> list[list[Link]]:
    """Neighbours in a row, in rounds in which no node has two to do with: forth, then back."""
    forth = [[(a, a + 1) for a in range(start, nodes - 1, 2)] for start in (0, 1)]
    return [hop for hop in (*forth, *([(b, a) for a, b in hop] for hop in forth)) if hop]


def per_link(ranks: Sequence[Mapping[str, Any]]) -> dict[Link, float]:
    """Bytes a second of each link: a node's ranks receive at once, so theirs add up."""
    found: dict[Link, float] = {}
    for rank in ranks:
        for a, b, rate in rank.get("links", ()):
            found[int(a), int(b)] = found.get((int(a), int(b)), 0.0) + float(rate)
    return found


def culprits(links: Mapping[Link, float], factor: float) -> list[tuple[str, list[int]]]:
    """("sends" | "receives", [node]) where all that a node does so is slower than the median by that factor, ("link", [from,
    to]) where it cannot be told; the explanation of most slow links first."""
    usual = median_high(links.values()) if links else 0.0
    slow = {link for link, rate in links.items() if rate * factor < usual}
    found = []
    while slow:
        ends = {(side, link[side]) for link in slow for side in (0, 1)}
        explained = {end: {link for link in links if link[end[0]] == end[1]} for end in ends}
        whole = {end: part for end, part in explained.items() if part <= slow}
        if not whole:
            found += [("link", list(link)) for link in sorted(slow)]
            break
        side, node = max(whole, key=lambda end: (len(whole[end]), -end[0], -end[1]))
        found.append(("receives" if side else "sends", [node]))
        slow -= whole[side, node]
    return found


def judge(job: Job, ranks: Sequence[Mapping[str, Any]], meeting: Meeting | None) -> Iterator[Finding]:
    """``ranks``: what each found. Errors first: of a group that could not be made nothing was measured."""
    code = EXIT_SLOW if policy(job) == "fail" else WARNING
    if any("error" in r for r in ranks):
        yield from _failed(job, ranks, meeting)
        return
    yield from _slow_ranks(job, ranks, meeting, code)
    yield from _slow_nodes(job, ranks, meeting, code)
    yield from _slow_network(job, ranks, meeting, code)


def place(job: Job, meeting: Meeting | None, rank: int) -> str:
    """Of a rank."""
    return ", ".join(
        [*([meeting.named(rank // job.distributed.processes_per_node)] if meeting else []), f"rank {rank}"]
    )


def _failed(job: Job, ranks: Sequence[Mapping[str, Any]], meeting: Meeting | None) -> Iterator[Finding]:
    fix = "open all ports between the hosts; name the right interface with GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME"
    if meeting is None:
        fix = "see nvidia-smi and dmesg for errors of the devices; NCCL_DEBUG=INFO says more"
    for rank, found in enumerate(ranks):
        if "error" in found:
            yield Finding(
                EXIT_NETWORK, f"all-reduce over all ranks failed: {found['error']}", fix, place(job, meeting, rank)
            )


def _slow_ranks(job: Job, ranks: Sequence[Mapping[str, Any]], meeting: Meeting | None, code: int) -> Iterator[Finding]:
    seconds = [float(r["product_seconds"]) for r in ranks]
    usual = median_low(seconds)
    for rank, found in enumerate(seconds):
        if found > STRAGGLER[job.distributed.device] * usual:
            told = f"a matrix product takes {found / usual:.1f} times the median ({found * 1e3:.2f} ms, {usual * 1e3:.2f} ms)"
            yield Finding(code, told, _RANK_FIX, place(job, meeting, rank))


_RANK_FIX: Final = (
    f"see clocks, power limit and temperature (nvidia-smi -q), and what else runs there; {SLOW_VARIABLE}=warn goes on"
)
_LINK_FIX: Final = (
    f"see nvidia-smi topo -m; or plan again with what is there in an inventory file; {SLOW_VARIABLE}=warn goes on"
)
_NETWORK_FIX: Final = (
    "see the adapter and its cable (ethtool, ibstat) and NCCL_DEBUG=INFO; or plan again with what is there in an inventory file; "
    f"{SLOW_VARIABLE}=warn goes on"
)


def _slow_nodes(job: Job, ranks: Sequence[Mapping[str, Any]], meeting: Meeting | None, code: int) -> Iterator[Finding]:
    """All-reduce within each node, against the plan (not on a CPU, whose links are its memory) and the other nodes."""
    per_node = job.distributed.processes_per_node
    if per_node == 1:
        return
    rates = [min(float(r["node_bus"]) for r in ranks[n : n + per_node]) for n in range(0, len(ranks), per_node)]
    planned = job.expect.link_bytes_per_second if job.distributed.device == "cuda" else 0.0
    usual = median_high(rates)
    for node, rate in enumerate(rates):
        where = meeting.named(node) if meeting else ""
        if rate < LINK_SHARE * planned:
            yield Finding(code, f"all-reduce within the node: {_of_plan(rate, planned)}", _LINK_FIX, where)
        elif rate * STRAGGLER[job.distributed.device] < usual:
            told = f"all-reduce within the node: {gb(rate)}, the median of all is {gb(usual)}"
            yield Finding(code, told, _LINK_FIX, where)


def _slow_network(
    job: Job, ranks: Sequence[Mapping[str, Any]], meeting: Meeting | None, code: int
) -> Iterator[Finding]:
    if meeting is None:
        return
    rate, planned, links = network_bus(ranks), job.expect.network_bytes_per_second, per_link(ranks)
    named = culprits(links, STRAGGLER[job.distributed.device])
    below = rate < LINK_SHARE * planned
    if below:
        told = f"all-reduce over all ranks: {_of_plan(rate, planned)}"
        alike = "" if named else "; its links are alike"
        yield Finding(code, told + alike, _NETWORK_FIX, "all hosts")
    for how, nodes in named:
        part = {link: r for link, r in links.items() if _belongs(link, how, nodes)}
        where = " to ".join(meeting.named(n) for n in nodes)
        told = f"{how if how != 'link' else 'carries'} {gb(max(part.values()))}, the fastest link {gb(max(links.values()))}"
        yield Finding(code if below else WARNING, told, _NETWORK_FIX, where)


def _belongs(link: Link, how: str, nodes: list[int]) -> bool:
    return list(link) == nodes if how == "link" else link[0 if how == "sends" else 1] == nodes[0]


def network_bus(ranks: Sequence[Mapping[str, Any]]) -> float:
    return min(float(r["bus"]) for r in ranks)


def _of_plan(rate: float, planned: float) -> str:
    return f"{gb(rate)} bus bandwidth, the plan counts on {gb(planned)}"


def gb(rate: float) -> str:
    """Bytes a second, for people."""
    return f"{rate / 1e9:.1f} GB/s" if rate >= 1e9 else f"{rate / 1e6:.1f} MB/s"
