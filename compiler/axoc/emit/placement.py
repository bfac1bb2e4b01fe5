"""Where the processes of a plan run: device, nodes, processes a node. Shared by job.json, the launcher and the report."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Final, Literal

from axoc.ir.plan import Plan

Device = Literal["cpu", "cuda"]
Profile = Literal["cpu", "cuda", "rocm"]

PROFILES: Final[dict[str, Profile]] = {"cpu": "cpu", "nvidia": "cuda", "amd": "rocm"}

BASE_IMAGES: Final = {"cpu": "python:3.11-slim", "cuda": "nvidia/cuda:13.0.1-runtime-ubuntu24.04"}
"""Of the Dockerfile, by profile. For ROCm the builder names one."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Invariant: nodes x processes_per_node = the plan's world size."""

    device: Device
    """torch's name of the device; AMD accelerators are ``cuda`` to torch too."""
    profile: Profile
    """Which lock of wheels fits."""
    nodes: int
    processes_per_node: int


def placement(plan: Plan) -> Placement:
    """Fills nodes before it takes another, so that a plan for fewer accelerators than there are stays on few nodes."""
    world_size = plan.chosen.candidate.world_size
    nodes = ceil(world_size / plan.cluster.accelerators_per_node)
    processes_per_node = world_size // nodes
    assert nodes * processes_per_node == world_size, (world_size, plan.cluster.label)
    profile = PROFILES[plan.cluster.accelerator.vendor]
    device: Device = "cpu" if profile == "cpu" else "cuda"
    return Placement(device=device, profile=profile, nodes=nodes, processes_per_node=processes_per_node)


def config_path(strategy: str) -> str | None:
    """The strategy's configuration file, relative to the bundle."""
    if strategy.startswith("zero"):
        return "config/deepspeed.json"
    return "config/fsdp.json" if strategy == "fsdp" else None
