"""What hosts have, a line each: for whoever looks at a preflight, or later at the log of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from axoc_runtime.job import Job
from axoc_runtime.preflight.devices import GIB
from axoc_runtime.preflight.finding import table
from axoc_runtime.preflight.node import NodeFacts
from axoc_runtime.preflight.speed import gb, network_bus, per_link

MOST_ROWS: Final = 32
"""Of a table in a log: what is wrong is listed apart, for all."""
HEAD: Final = (
    "node", "host", "accelerators", "driver", "torch", "host memory: free, needed", "disk: free, needed", "clock", "product", "in the node",
    "to and from the next",
)  # fmt: skip


def report(
    job: Job, nodes: Sequence[NodeFacts], ranks: Sequence[dict[str, Any]], offsets_seconds: Sequence[float]
) -> str:
    """With the all-reduce over all ranks beneath."""
    shown = nodes[:MOST_ROWS]
    measured = [r for r in ranks if "error" not in r]
    whole = measured if len(measured) == len(ranks) else []
    rows = [_row(job, n, node, whole, offsets_seconds[n]) for n, node in enumerate(shown)]
    lines = [table(rows, HEAD)]
    if len(nodes) > len(shown):
        lines.append(f"  … and {len(nodes) - len(shown)} more nodes")
    if whole and len(nodes) > 1:
        planned = job.expect.network_bytes_per_second
        beside = f", the plan counts on {gb(planned)}" if planned else ""
        lines.append(f"  all-reduce over {len(ranks)} ranks: {gb(network_bus(whole))} bus bandwidth{beside}")
    return "\n".join(lines)


def _row(job: Job, number: int, node: NodeFacts, ranks: Sequence[dict[str, Any]], offset: float) -> tuple[str, ...]:
    per_node = job.distributed.processes_per_node
    own = ranks[number * per_node : (number + 1) * per_node]
    products, buses = [r["product_seconds"] for r in own], [r["node_bus"] for r in own if "node_bus" in r]
    links = per_link(ranks)
    memory = (
        "?" if node.memory_bytes is None else f"{node.memory_bytes / GIB:.1f}, {job.expect.host_bytes / GIB:.1f} GiB"
    )
    return (
        str(number),
        node.host,
        ", ".join(f"{c} x {name}" for name, c in sorted(Counter(node.devices).items()))
        or f"{per_node} x {job.expect.accelerator}",
        node.driver or "-",
        node.versions.get("torch", "-"),
        memory,
        f"{node.disk_bytes / GIB:.1f}, {job.expect.disk_bytes / GIB:.1f} GiB",
        f"{offset:+.3f} s",
        f"{max(products) * 1e3:.2f} ms" if products else "-",
        gb(min(buses)) if buses else "-",
        ", ".join(gb(links[link]) for link in ((number, number + 1), (number + 1, number)) if link in links) or "-",
    )
