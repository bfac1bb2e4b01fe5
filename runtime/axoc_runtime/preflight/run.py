"""The order of a preflight: each host by itself, then what they have in common, then how fast they are together."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any, Final

from axoc_runtime.errors import EXIT_ENVIRONMENT, EXIT_INPUTS, EXIT_PREFLIGHT, RuntimeFailure
from axoc_runtime.hosts.interface import use_interface
from axoc_runtime.hosts.join import meet
from axoc_runtime.hosts.meeting import Meeting
from axoc_runtime.hosts.place import Place, place_of
from axoc_runtime.job import Job
from axoc_runtime.preflight.agree import compare, compare_clocks, compare_sight
from axoc_runtime.preflight.finding import Finding, listed, worst
from axoc_runtime.preflight.folder import sees_shared_folder
from axoc_runtime.preflight.node import NodeFacts, look
from axoc_runtime.preflight.ranks import LIMIT_SECONDS, measured
from axoc_runtime.preflight.report import report
from axoc_runtime.preflight.speed import judge, policy

LOOK_SECONDS: Final = 300.0
"""For hosts to look at themselves: importing torch from a slow disk, and a store that does not answer."""
UNFIT: Final = (EXIT_INPUTS, EXIT_ENVIRONMENT, EXIT_PREFLIGHT)
"""With one of these nothing is measured: ranks may not start at all."""


def run(job: Job) -> None:
    """Raises RuntimeFailure with the code of what is worst (docs/failures.md), on every host the same."""
    place = place_of(job.distributed.nodes)
    if place is None:
        _alone(job)
        return
    with meet(place, "preflight") as meeting:
        use_interface(meeting.own_address)
        _together(job, place, meeting)


def _alone(job: Job) -> None:
    node = look(job, first=True)
    findings, ranks = list(node.findings), []
    if job.distributed.processes_per_node > 1 and _is_measured(job, findings):
        ranks = measured(job, Place(0, 1, "127.0.0.1", _free_port()))
        findings += judge(job, ranks, None)
    _tell(job, [node], ranks, None, [0.0], findings)


def _together(job: Job, place: Place, meeting: Meeting) -> None:
    mine = look(job, first=meeting.node == 0)
    nodes = [NodeFacts.of(value) for value in meeting.gather(mine.to_dict(), LOOK_SECONDS)]
    findings = [f.at(meeting.named(n)) for n, node in enumerate(nodes) for f in node.findings]
    findings += compare(nodes, meeting)
    offsets = meeting.clock_offsets_seconds()
    findings += compare_clocks(offsets, meeting)
    findings += compare_sight(sees_shared_folder(job, meeting), str(job.output), meeting)
    ranks: list[dict[str, Any]] = []
    if _is_measured(job, findings):
        parts = meeting.gather(measured(job, place), LIMIT_SECONDS + LOOK_SECONDS)
        ranks = [rank for part in parts for rank in part]
        findings += judge(job, ranks, meeting)
    _tell(job, nodes, ranks, meeting, offsets, findings)


def _is_measured(job: Job, findings: Sequence[Finding]) -> bool:
    return policy(job) != "off" and not any(f.code in UNFIT for f in findings)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _tell(
    job: Job,
    nodes: Sequence[NodeFacts],
    ranks: Sequence[dict[str, Any]],
    meeting: Meeting | None,
    offsets_seconds: Sequence[float],
    findings: Sequence[Finding],
) -> None:
    """The first host shows what every one has; what was found is shown by all."""
    if meeting is None or meeting.node == 0:
        print(report(job, nodes, ranks, offsets_seconds), flush=True)
    code = worst(findings)
    if code:
        head = "this machine is" if meeting is None else "the hosts are"
        raise RuntimeFailure(f"{head} not what the plan was made for:\n{listed(findings)}", code)
    if findings:
        print(f"axoc: warnings:\n{listed(findings)}", flush=True)
    each = f" on each of {len(nodes)} nodes" if len(nodes) > 1 else ""
    print(f"axoc: {job.distributed.processes_per_node} x {job.expect.accelerator}{each} as planned", flush=True)
