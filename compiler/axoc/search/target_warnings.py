"""Warnings of what a target needs and its plan does not name: it would be missed only once the nodes are paid for."""

from __future__ import annotations

from axoc.ir.facts import ClusterFacts
from axoc.ir.request import PlanRequest


def target_warnings(request: PlanRequest, cluster: ClusterFacts) -> tuple[str, ...]:
    if request.target.type == "kubernetes":
        return (*_no_claim(request, cluster), *_no_image(request))
    if request.target.type == "skypilot" and cluster.nodes > 1:
        return (
            "target: skypilot copies the working folder to each node, and several nodes need one folder that all of them "
            "see: set output_dir to a mounted one, or preflight stops",
        )
    return ()


def _no_claim(request: PlanRequest, cluster: ClusterFacts) -> tuple[str, ...]:
    if request.target.claim is not None:
        return ()
    lost = "which holds none of the spec's local files"
    if cluster.nodes > 1:
        lost += ", is not the other nodes' (preflight stops)"
    if request.upload_to is None:
        lost += ", and goes with the pod: a restart begins anew, and the result is lost"
    return (f"target.claim is not set: each pod has an empty /work of its own, {lost}",)


def _no_image(request: PlanRequest) -> tuple[str, ...]:
    if request.target.image is not None:
        return ()
    return (
        "target.image is not set: the image is named without a registry, so only nodes that have it already can run it",
    )
