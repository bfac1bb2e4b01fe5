"""From a catalog accelerator and a count to ClusterFacts: the typical node's share, and how processes share a CPU."""

from __future__ import annotations

from dataclasses import replace

from axoc.facts.accelerators import CatalogAccelerator, NodeFacts, price_of, spot_price_of
from axoc.facts.links import link_kind
from axoc.ir.facts import AcceleratorFacts, ClusterFacts
from axoc.units import GIB

BITS_PER_BYTE = 8


def typical_cluster(entry: CatalogAccelerator, per_node: int, nodes: int) -> ClusterFacts:
    """Nodes as they are usually rented; a node with half the accelerators has half of the memory and cores."""
    price, source = price_of(entry.facts.name)
    spot, spot_source = spot_price_of(entry.facts.name)
    node = entry.node
    cluster = ClusterFacts(
        accelerator=entry.facts,
        accelerators_per_node=1 if is_cpu(entry.facts) else per_node,
        nodes=nodes,
        host_memory_bytes=round(_share(entry, per_node) * node.host_memory_gib * GIB),
        disk_bytes=None,
        network_bandwidth_bytes_per_second=_network(node, per_node),
        network_kind=node.network_kind,
        price_usd_per_accelerator_hour=price,
        price_source=source,
        spot_price_usd_per_accelerator_hour=spot,
        spot_price_source=spot_source,
        cpu_cores_per_node=max(1, round(_share(entry, per_node) * node.cpu_cores)),
        link_direct=link_kind(entry.facts.link_kind).direct,
    )
    return with_processes(cluster, per_node)


def with_processes(cluster: ClusterFacts, processes: int) -> ClusterFacts:
    """The same machine with so many CPU processes on it: each has its share of memory, cores and bandwidth.

    Clusters of other accelerators are handed back unchanged: theirs are counted, not chosen.
    """
    if not is_cpu(cluster.accelerator):
        return cluster
    factor = cluster.accelerators_per_node / processes
    own = cluster.accelerator
    shared = replace(
        own,
        memory_bytes=cluster.host_memory_bytes // processes,
        memory_bandwidth_bytes_per_second=own.memory_bandwidth_bytes_per_second * factor,
        dense_flops_per_second={k: rate * factor for k, rate in own.dense_flops_per_second.items()},
    )
    return replace(cluster, accelerator=shared, accelerators_per_node=processes)


def with_cores(cluster: ClusterFacts, cores: int, catalog_cores: int) -> ClusterFacts:
    """The node with another number of cores; a CPU's compute rates follow it, its memory bandwidth does not."""
    own = cluster.accelerator
    if is_cpu(own):
        factor = cores / catalog_cores
        own = replace(own, dense_flops_per_second={k: r * factor for k, r in own.dense_flops_per_second.items()})
    return replace(cluster, accelerator=own, cpu_cores_per_node=cores)


def is_cpu(accelerator: AcceleratorFacts) -> bool:
    return accelerator.vendor == "cpu"


def gbps_to_bytes(gbps: float) -> float:
    """Gigabits a second to bytes a second."""
    return gbps * 1e9 / BITS_PER_BYTE


def _share(entry: CatalogAccelerator, per_node: int) -> float:
    return 1.0 if is_cpu(entry.facts) else per_node / entry.node.accelerators


def _network(node: NodeFacts, per_node: int) -> float:
    return gbps_to_bytes(node.network_gbps) * min(1.0, per_node / node.accelerators)
