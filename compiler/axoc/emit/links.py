"""What the plan counts on of links, as the preflight measures it: bus bandwidth of an all-reduce, bytes a second."""

from __future__ import annotations

from axoc.emit.placement import placement
from axoc.facts.links import link_kind
from axoc.facts.profile import Pace, profile_for
from axoc.ir.plan import Plan


def counted_rates(plan: Plan) -> dict[str, float]:
    """Of all ranks of a node among themselves, and of all ranks over the network, which the slower of both carries (as
    cost/mesh.py has it); 0 where the plan uses no such link."""
    place, cluster, profile = placement(plan), plan.cluster, profile_for(plan.cluster)
    pace = (profile.pace if profile is not None else Pace()).links
    own, ranks = cluster.accelerator, place.processes_per_node
    inside = own.link_bandwidth_bytes_per_second * link_kind(own.link_kind).efficiency
    if cluster.link_direct and cluster.accelerators_per_node > 2:
        inside *= (ranks - 1) / (cluster.accelerators_per_node - 1)
    share = cluster.network_efficiency or link_kind(cluster.network_kind).efficiency
    across = cluster.network_bandwidth_bytes_per_second * share
    return {
        "link_bytes_per_second": round(inside / pace, 0) if ranks > 1 else 0.0,
        "network_bytes_per_second": round((min(inside, across) if ranks > 1 else across) / pace, 0)
        if place.nodes > 1
        else 0.0,
    }
