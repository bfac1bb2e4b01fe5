"""The inventory's file form.

version: 1
kinds:
  - accelerator: h100-sxm-80gb   # a catalog name: what is not said below is taken from its typical node
    per_node: 8
    nodes: 4
    memory_gib: 79.18            # of one accelerator, as a process can use it
    host_memory_gb: 2048         # GiB of one node
    disk_gb: 28000               # GiB free on one node
    cpu_cores: 192               # logical cores of one node
    network: {kind: infiniband, gbps: 3200}   # between nodes: gigabits a second, one direction, of one node; or
                                              # {kind: infiniband-ndr, ports: 8}; efficiency and latency_us if measured
    link: {kind: nvlink, gbps: 3600}          # inside a node: gigabits a second, one direction, of one accelerator;
                                              # direct: true where no switch is between
    price_per_hour_usd: 2.99     # of one accelerator
    spot_price_per_hour_usd: 1.49   # of one whose node may be taken away
    failures_per_node_day: 0.004    # that end a run; default: as published of large clusters
    spot_failures_per_node_day: 0.1 # the same where nodes are taken away, failures included
    storage_gbps: 40             # written by one node: gigabits a second, as checkpoints took
    profile: h100.json           # by axoc calibrate on these machines, beside this file; default: the one that ships
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

import yaml

from axoc.facts.accelerators import CatalogAccelerator, find_accelerator
from axoc.facts.cluster import gbps_to_bytes, is_cpu, typical_cluster, with_cores, with_processes
from axoc.facts.inventory import unknown_accelerator
from axoc.facts.inventory_links import read_link, read_network
from axoc.facts.links import link_kind
from axoc.facts.profile import parse_profile
from axoc.facts.yaml_nodes import NodeReader, compose, place, scalar
from axoc.ir.facts import ClusterFacts
from axoc.units import GIB

VERSION: Final = 1
_TOP: Final = ("version", "kinds")
_KIND: Final = (
    "accelerator",
    "per_node",
    "nodes",
    "memory_gib",
    "host_memory_gb",
    "disk_gb",
    "cpu_cores",
    "network",
    "link",
    "price_per_hour_usd",
    "spot_price_per_hour_usd",
    "failures_per_node_day",
    "spot_failures_per_node_day",
    "storage_gbps",
    "profile",
)
_MAX_PROFILE_BYTES: Final = 16 << 20
_STAND_IN: Final = "cpu"


def parse_inventory_file(text: str, file: str) -> tuple[ClusterFacts, ...]:
    """Raises UserError with every problem, each with file, line and column."""
    reader = NodeReader(file=file)
    root = compose(text, file)
    top = reader.mapping(root, _TOP, "the inventory")
    if top:
        _check_version(reader, root, top)
    kinds = top.get("kinds")
    clusters = []
    if isinstance(kinds, yaml.SequenceNode) and kinds.value:
        clusters = [_kind(reader, node) for node in kinds.value]
    elif top:
        reader.reject(kinds or root, "kinds is missing or empty", expected="a list of kinds of nodes, at least one")
    reader.finish()
    return tuple(cluster for cluster in clusters if cluster is not None)


def _check_version(reader: NodeReader, root: yaml.Node | None, top: dict[str, yaml.Node]) -> None:
    if scalar(top.get("version")) != VERSION:
        reader.reject(top.get("version") or root, "the inventory's version is not 1", expected="version: 1")


def _kind(reader: NodeReader, node: yaml.Node) -> ClusterFacts | None:
    values = reader.mapping(node, _KIND, "kinds")
    if not values:
        return None
    known = _accelerator(reader, node, values)
    entry = known or find_accelerator(_STAND_IN)  # an unknown name: the other keys are checked all the same
    assert entry is not None
    per_node = reader.count(values.get("per_node"), "per_node", 1)
    cluster = typical_cluster(entry, per_node, reader.count(values.get("nodes"), "nodes", 1))
    cores = reader.count(values.get("cpu_cores"), "cpu_cores", cluster.cpu_cores_per_node)
    cluster = _own_node(reader, values, with_cores(cluster, cores, cluster.cpu_cores_per_node))
    cluster = _own_prices(reader, values, _own_memory(reader, values, cluster))
    cluster = replace(cluster, calibration=_own_profile(reader, values.get("profile"), entry.facts.name))
    return with_processes(cluster, per_node) if known is not None else None


def _accelerator(reader: NodeReader, node: yaml.Node, values: dict[str, yaml.Node]) -> CatalogAccelerator | None:
    name = reader.text(values.get("accelerator"), "accelerator")
    if name is None:
        if "accelerator" not in values:
            reader.reject(node, "accelerator is missing", expected="a catalog name, e.g. h100-sxm-80gb")
        return None
    entry = find_accelerator(name)
    if entry is None:
        reader.problems.append(unknown_accelerator(name, **place(values["accelerator"], reader.file)))
    return entry


def _own_node(reader: NodeReader, values: dict[str, yaml.Node], cluster: ClusterFacts) -> ClusterFacts:
    """The node as the file says it is, where it says so."""
    memory = reader.number(values.get("host_memory_gb"), "host_memory_gb")
    disk = reader.number(values.get("disk_gb"), "disk_gb")
    storage = reader.number(values.get("storage_gbps"), "storage_gbps")
    cluster = _own_links(reader, values, cluster)
    return replace(
        cluster,
        host_memory_bytes=round(memory * GIB) if memory else cluster.host_memory_bytes,
        host_memory_given=bool(memory) or cluster.host_memory_given,
        disk_bytes=round(disk * GIB) if disk else cluster.disk_bytes,
        failures_per_node_day=reader.number(values.get("failures_per_node_day"), "failures_per_node_day"),
        spot_failures_per_node_day=reader.number(
            values.get("spot_failures_per_node_day"), "spot_failures_per_node_day"
        ),
        storage_bytes_per_second=None if storage is None else gbps_to_bytes(storage),
    )


def _own_links(reader: NodeReader, values: dict[str, yaml.Node], cluster: ClusterFacts) -> ClusterFacts:
    link, network = read_link(reader, values.get("link")), read_network(reader, values.get("network"))
    own, rate = cluster.accelerator, link.bytes_per_second
    own = replace(
        own,
        link_kind=link.kind or own.link_kind,
        link_bandwidth_bytes_per_second=rate or own.link_bandwidth_bytes_per_second,
        sources=own.sources | ({"link_bandwidth_bytes_per_second": f"inventory {reader.file}"} if rate else {}),
    )
    return replace(
        cluster,
        accelerator=own,
        link_direct=link_kind(own.link_kind).direct if link.direct is None else link.direct,
        network_kind=network.kind or cluster.network_kind,
        network_bandwidth_bytes_per_second=network.bytes_per_second or cluster.network_bandwidth_bytes_per_second,
        network_efficiency=network.efficiency,
        network_latency_seconds=network.latency_seconds,
    )


def _own_prices(reader: NodeReader, values: dict[str, yaml.Node], cluster: ClusterFacts) -> ClusterFacts:
    """The file's prices. One provider's price on demand is not shown beside another's spot price."""
    price = reader.number(values.get("price_per_hour_usd"), "price_per_hour_usd")
    spot = reader.number(values.get("spot_price_per_hour_usd"), "spot_price_per_hour_usd")
    own = f"inventory {reader.file}"
    if price is not None:
        cluster = replace(cluster, price_usd_per_accelerator_hour=price, price_source=own)
    if price is None and spot is None:
        return cluster
    source = own if spot is not None else f"{own} gives no spot_price_per_hour_usd"
    return replace(cluster, spot_price_usd_per_accelerator_hour=spot, spot_price_source=source)


def _own_profile(reader: NodeReader, node: yaml.Node | None, accelerator: str) -> str | None:
    """The text of the profile that is named, which is one of this accelerator."""
    written = reader.text(node, "profile")
    if written is None:
        return None
    path = Path(reader.file).parent / Path(written).expanduser()
    try:
        with path.open("rb") as stream:
            text = stream.read(_MAX_PROFILE_BYTES).decode("utf-8")
        parse_profile(accelerator, text)
    except OSError as error:
        reader.reject(node, f"cannot read the profile {path}: {error.strerror}", fix="its path counts from this file")
        return None
    except ValueError as error:
        fix = "write it with axoc calibrate on a machine that has this accelerator"
        reader.reject(node, f"profile {written} is no profile of {accelerator}: {error}", fix=fix)
        return None
    return text


def _own_memory(reader: NodeReader, values: dict[str, yaml.Node], cluster: ClusterFacts) -> ClusterFacts:
    memory = reader.number(values.get("memory_gib"), "memory_gib")
    own = cluster.accelerator
    if memory is None or is_cpu(own):  # a CPU process has its share of the host's memory
        return cluster
    sources = own.sources | {"memory_bytes": f"inventory {reader.file}"}
    return replace(cluster, accelerator=replace(own, memory_bytes=round(memory * GIB), sources=sources))
